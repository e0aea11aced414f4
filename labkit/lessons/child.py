"""Top floor: the stage child, the notebook's side: kernel work as if it were done in the cell.

Owns: starting the program that does it, sending it a function in a named stage, and giving
back what came of it: value, prints, exception, system calls; and the end of the child with
everything that it started, whatever happens.

    with Child("demo") as one:
        one.do(leave, ["uts"], stage="unshare")
        print(one.pid, one.do(os.uname).nodename, one.calls)

A fenced child (the default) has a mount namespace of its own, out of which no mount reaches
the machine; its other namespaces are the machine's until a stage leaves them.  What a stage
assigns to global names is gone after it; what it returns, and what the kernel holds, stays.

Read: the issue of threads in unshare(2) and setns(2); cloudpickle's README.
"""

from __future__ import annotations

import atexit
import errno
import functools
import itertools
import os
import pickle
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

from labkit.errors import BadInput, Refused
from labkit.kernel import constants as C
from labkit.kernel import syscalls
from labkit.lessons import remote, stages, travel, tree
from labkit.lessons.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

START_LIMIT = 60.0  # seconds until the child must have spoken: a slow, emulated machine takes several

# Told of every child that has been started, before its first stage: labkit.lessons.xray.
on_start: list[Callable[[Child], None]] = []
_living: dict[str, Child] = {}
_lock = threading.RLock()
_numbers = itertools.count(1)


class Stage(NamedTuple):
    """One stage that was begun, and the system calls that were made in it, forked processes' too."""

    name: str
    calls: list[syscalls.Call]


class Child:
    """A fresh, single-threaded program that works for this one, stage by stage.

    pid      its process, as this process numbers it
    stages   what was done so far, each with its system calls
    setup    the fence's calls, which are in neither of the others
    calls    all of them: labkit's own record (programs that it starts make theirs unseen)
    left     after close: processes that its stages had left behind, which were ended
    fenced   whether it has a mount namespace of its own
    """

    def __init__(
        self,
        name: str = "child",
        *,
        fence: bool = True,
        imports: Iterable[str] = (),
        leaves: bool = False,
        fail: tuple[int | str, int] | None = None,
    ) -> None:
        """Start it; a living child of the same name ends first (a cell run twice).

        fence    a mount namespace of its own (where it may mount at all; others cannot reach the machine anyway)
        imports  modules to import before the first stage, for functions that run after a pivot_root
        leaves   stages leave processes behind on purpose: end them at the close without a word
        fail     (n or a call's name, errno): the n-th system call of its stages, the fence's among them, fails once

        Raises LabError when it cannot be started.
        """
        self.name = name
        self.setup = Stage("fence", [])
        self.stages: list[Stage] = []
        self.left: list[tree.Left] = []
        self.closed = False
        self.pid = 0
        self._spawned: list[int] = []
        self._leaves = leaves
        self._maker = os.getpid()
        self._lock = threading.RLock()
        with _lock:
            if (old := _living.pop(name, None)) is not None:
                old.close()
            options = {"fence": fence, "imports": list(imports), "fail": fail}
            self._worker = Worker(name, options, self._note)
            _living[name] = self
        answer = self._guarded("fence" if fence else "start", None, START_LIMIT, "")
        self.pid = int(answer.get("pid", 0))
        self._worker.has_spoken(self.pid)
        try:
            self.fenced = bool(self._result(answer, "fence"))
            for tell in on_start:
                tell(self)
        except BaseException:
            self.close()
            raise

    # --- what a notebook asks for --------------------------------------------------------

    def do(self, function: Callable[..., T], *args: Any, stage: str = "", limit: float = 20.0) -> T:
        """Run function(*args) in the child; its value, or its exception with the child's traceback as a note.

        What it prints appears here while it runs.  `stage` (default: the function's name) is
        the child's title in `ps`.  A value that cannot be pickled comes back as its repr.

        Raises what the function raises; Hung after `limit` seconds; Died when its process ends
        instead of answering.  After these two the child is closed, and its tree ended.
        """
        __tracebackhide__ = True  # a notebook shows the cell's line, not the way from here on
        stage = stage or getattr(function, "__name__", "stage").strip("<>")
        try:
            value: T = self._ask("do", stage, travel.pack(function, args), limit, travel.home(function))
        except BaseException as error:
            raise error.with_traceback(None)  # noqa: B904 -- the very same one
        return value

    def spawn(self, *command: str, limit: float = 20.0) -> int:
        """Start a program in the child, and go on; its pid as seen from here.

        In a new pid namespace the first one is its process 1.  It prints into the next stage,
        and ends with the child.  Raises NotFound when it cannot be executed.
        """
        if not command:
            raise BadInput("spawn() needs a command", next='one.spawn("sleep", "1000")')
        stage = f"spawn {os.path.basename(command[0])}"
        pid = int(self._ask("spawn", stage, pickle.dumps(list(command)), limit, ""))
        self._spawned.append(pid)
        return pid

    def wait(self, limit: float = 20.0) -> int:
        """After a stage that called execve: show what the program prints until it ends; its status, -N for a signal.

        Raises Hung after `limit` seconds; Refused when the child is still a stage child.
        """
        if self._worker.ended is None:
            if not self._worker.became:
                raise Refused(f"the child {self.name!r} waits for stages, and does not end by itself")
            self._guarded("wait", None, limit, "")
        assert self._worker.ended is not None
        return os.waitstatus_to_exitcode(self._worker.ended)

    @property
    def calls(self) -> list[syscalls.Call]:
        """All recorded system calls, in order."""
        return [call for stage in self.stages for call in stage.calls]

    def close(self) -> None:
        """End the child and everything that it has started. Twice is fine."""
        with self._lock:
            if self.closed or self._maker != os.getpid():
                return
            self.closed = True
            if _living.get(self.name) is self:
                del _living[self.name]
            self.left = self._worker.end(self._spawned)
        if self.left and not self._leaves:
            names = ", ".join(sorted(one.name for one in self.left))
            count = f"{len(self.left)} process{'es' if len(self.left) > 1 else ''}"
            print(f"child {self.name!r}: its stages left {count} behind ({names}); ended")

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise Refused(
            f"the child {self.name!r} cannot be sent into a child",
            why="a function that runs in a stage uses the name of a Child of the notebook",
            next="give the function what it needs of it as an argument: one.do(function, one.pid)",
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"pid {self.pid}"
        return f"<Child {self.name!r}, {state}, {len(self.stages)} stages>"

    # --- how it is done -------------------------------------------------------------------

    def _ask(self, verb: str, stage: str, body: bytes, limit: float, file: str) -> Any:
        with self._lock:
            worker = self._worker
            if self.closed or worker.ended is not None or worker.became:
                raise Refused(
                    f"the child {self.name!r} can do no further stage, {stage!r}",
                    why=f"it has become {worker.became}" if worker.became and not self.closed else "it has ended",
                    next=f"make a new one: Child({self.name!r}), and run its stages from the first",
                )
            self.stages.append(Stage(stage, []))
            answer = self._guarded(stage, pickle.dumps((verb, stage, body)), limit, file)
            return self._result(answer, stage)

    def _guarded(self, stage: str, parcel: bytes | None, limit: float, file: str) -> dict[str, Any]:
        """Exchange; whatever keeps the answer from coming ends the child."""
        try:
            return self._worker.exchange(stage, parcel, limit, file)
        except BaseException as error:
            self.close()
            if isinstance(error, KeyboardInterrupt):
                error.add_note(
                    f"interrupted in the stage {stage!r}: the child {self.name!r} was ended with everything that it "
                    "started; run the cell that makes it again"
                )
            raise

    def _note(self, stage: str, call: syscalls.Call) -> None:
        home = next((one for one in reversed(self.stages) if one.name == stage), self.setup)
        home.calls.append(call)
        if home is not self.setup:
            syscalls.note(call)

    def _result(self, answer: dict[str, Any], stage: str) -> Any:
        for number in answer.get("closed", ()):
            stream = ("standard input", "standard output", "standard error")[number]
            print(f"child {self.name!r}: the stage {stage!r} closed its {stream} (descriptor {number}); "
                  "the next stage has it again")  # fmt: skip
        if "error" in answer:
            error = remote.catch(answer["error"], f"In the stage {stage!r} of the child {self.name!r}:")
            self._explain(error)
            raise error
        value = remote.unpack(answer["value"]) if "value" in answer else None
        if isinstance(value, remote.Repr):
            print(
                f"child {self.name!r}: the value of the stage {stage!r} cannot travel ({value.why}): this is its repr"
            )
        return value

    def _explain(self, error: BaseException) -> None:
        """Say what the kernel's errno means in a process that has unshared its pid namespace; the record knows."""
        if not isinstance(error, OSError) or not any(map(_unshared_pids, self.calls)):
            return
        again = f"next: make a new Child({self.name!r}): run the cell that makes it again"
        if error.errno == errno.EINVAL and "unshare(" in str(error):
            error.add_note(
                f"  why:  the child {self.name!r} has unshared its pid namespace already, and can do so once: "
                f"it is not in the new namespace itself, only its children are\n  {again}, or fork first"
            )
        elif error.errno == errno.ENOMEM:
            error.add_note(
                f"  why:  the first process that the child {self.name!r} started in its new pid namespace, process 1 "
                f"there, has ended; the kernel makes no further process in such a namespace\n  {again}, and start "
                "something first that lives as long as it is needed"
            )


def _unshared_pids(call: syscalls.Call) -> bool:
    """Whether this call has made a pid namespace for the caller's children."""
    if call.name != "unshare" or call.errno:
        return False
    return isinstance(call.arguments[0], int) and bool(call.arguments[0] & C.CLONE_NEWPID)


@overload
def in_child(function: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def in_child(*, limit: float = 20.0, fence: bool = True) -> Callable[[Callable[P, T]], Callable[P, T]]: ...


def in_child(function: Any = None, /, *, limit: float = 20.0, fence: bool = True) -> Any:
    """Make each call of a function run in a fresh child, which ends with it; see Child.do for what comes back."""
    if function is None:
        return functools.partial(in_child, limit=limit, fence=fence)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if stages.INSIDE:  # the function calls itself: it is where it wants to be
            return function(*args, **kwargs)
        name = getattr(function, "__name__", "function")
        with Child(f"{name} {next(_numbers)}", fence=fence) as one:
            whole = functools.partial(function, *args, **kwargs) if kwargs else function
            return one.do(whole, *(() if kwargs else args), stage=name, limit=limit)

    return wrapper


@atexit.register
def close_all() -> None:
    """Close every child of this process; Python does so at its end."""
    with _lock:
        for one in list(_living.values()):
            one.close()
