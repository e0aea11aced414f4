"""Top floor: the child's side of the stage child: one process, one thread, one stage after the other.

Owns: what happens between two parcels: the stage's name becomes the process's title, the
function is loaded and called, and its value or exception goes back.  What is printed goes
into the notebook's pipe at the level of descriptors, so that programs print there too.
System calls made through labkit are written to a memory file that outlives this process,
forked processes' calls too.

Everything is imported before the first stage: a stage may pivot away from the library.

Read: memfd_create(2), O_APPEND in open(2), faulthandler's documentation, PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import faulthandler
import fcntl
import importlib
import io
import linecache
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NoReturn

from labkit.errors import LabError, NotFound
from labkit.kernel import capabilities, causes, mounts, process, syscalls
from labkit.kernel import constants as C
from labkit.lessons import remote
from labkit.lessons.endings import MUTE
from labkit.lessons.line import Line

# On this signal the child writes its Python stack into the stack file.
SHOW_STACK = signal.SIGRTMAX - 2
# What functions of lessons import by name must be in memory before a stage pivots away.
AHEAD = (
    *("ctypes", "errno", "json", "pathlib", "random", "re", "secrets", "shutil", "socket", "stat"),
    *("subprocess", "tempfile", "time", "encodings.idna", "cloudpickle"),
    *(f"labkit.kernel.{name}" for name in ("capabilities", "constants", "mounts", "namespaces", "overlay")),
    *("labkit.kernel.cgroups", "labkit.kernel.rtnetlink"),
)
RECORD = struct.Struct("<I")
INSIDE = False  # whether this process is a stage child


class Record:
    """Where the calls go: a file in memory that forked processes share, each call in one write."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.stage = ""  # of no name: the child's own housekeeping, which is not written down
        self.identity = os.fstat(fd).st_ino
        self.failed: list[syscalls.Call] = []  # the last one of this stage that did

    def append(self, call: syscalls.Call, /) -> None:
        """Write one call down, if the function has left the file alone."""
        if not self.stage:
            return
        if call.errno:
            self.failed = [call]
        parcel = pickle.dumps((self.stage, tuple(syscalls.plain(call))))
        try:
            if os.fstat(self.fd).st_ino == self.identity:
                os.write(self.fd, RECORD.pack(len(parcel)) + parcel)
        except OSError:
            pass


class Stages:
    """The child's loop and what it needs to stay itself."""

    def __init__(self, line: Line, record: int, stack: int, fail: tuple[int | str, int] | None) -> None:
        self.failure = syscalls.Failure(*fail) if fail else None
        self.pid = os.getpid()
        self.forked = False
        # High numbers, out of the way of what a function opens and closes by number.
        base = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024) - 16
        self.line = Line(_move(line.inward, base), _move(line.outward, base))
        self.record = Record(_move(record, base))
        self.stack = _move(stack, base)
        self.standard = [_move(os.dup(number), base) for number in (0, 1, 2)]
        self.identity = os.fstat(self.line.outward).st_ino
        faulthandler.register(SHOW_STACK, file=self.stack, all_threads=False)
        os.register_at_fork(before=_flush, after_in_child=self._mark)
        syscalls.keep(self.record)

    def _mark(self) -> None:
        self.forked = True

    def run(self) -> NoReturn:
        """One stage after the other, until the line ends."""
        while True:
            try:
                parcel = self.line.receive()
            except OSError:
                self.fall_silent()
            if parcel is None:
                os._exit(0)
            verb, stage, body = pickle.loads(parcel)
            self.restore()
            process.set_title(f"labkit:{stage}")
            answer = self.stage(stage, VERBS[verb], body)
            answer["closed"] = [number for number in (0, 1, 2) if not _is_open(number)]
            self.answer(answer)

    def stage(self, name: str, work: Callable[[bytes], Any], body: bytes) -> dict[str, Any]:
        """Do one stage's work; what to answer.  A process that the work forked does not come back from here."""
        self.record.stage = name
        self.record.failed = []
        try:
            with syscalls.failing(self.failure) if self.failure else nullcontext():
                value = work(body)
            if self.strayed():
                _leave(0)
            return {"value": remote.pack(value)}
        except SystemExit as error:
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
            _leave(error.code if isinstance(error.code, int) else int(error.code is not None))
        except BaseException as error:
            if self.strayed():
                print(remote.text(remote.throw(error, __file__).chain), file=sys.stderr)
                _leave(1)
            self.record.stage = ""  # what the finders of causes look at is not the function's doing
            if isinstance(error, OSError):
                causes.note_from(error, self.record.failed)
            return {"error": remote.throw(error, __file__)}
        finally:
            _flush()
            self.record.stage = ""

    def strayed(self) -> bool:
        """Whether this is a process that the learner's function forked, and that returned from it."""
        return self.forked or os.getpid() != self.pid

    def answer(self, answer: dict[str, Any]) -> None:
        """Send the answer, unless the function has closed or replaced the line."""
        try:
            if os.fstat(self.line.outward).st_ino == self.identity:
                self.line.send(pickle.dumps(answer))
                return
        except OSError:
            pass
        self.fall_silent()

    def fall_silent(self) -> NoReturn:
        """End in the way that the guardian can tell from all others."""
        signal.signal(MUTE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {MUTE})
        os.kill(os.getpid(), MUTE)
        os._exit(1)

    def restore(self) -> None:
        """Each stage begins with standard streams that work: nothing to read, and the cell to print to."""
        for number, fd in enumerate(self.standard):
            try:
                os.dup2(fd, number, inheritable=True)
            except OSError:
                pass  # the function has closed ours too; it will see so
        for name, number in (("stdout", 1), ("stderr", 2)):
            raw = io.FileIO(number, "w", closefd=False)
            text = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
            setattr(sys, name, text)
            setattr(sys, f"__{name}__", text)


def begin(line: Line, record: int, stack: int, options: dict[str, Any]) -> NoReturn:
    """Live as the child: the fence, the imports, the stages; never return."""
    global INSIDE
    INSIDE = True
    try:
        process.die_with_parent()
        if os.getppid() != options["guardian"]:
            os._exit(1)
        for name in (*AHEAD, *options["imports"]):
            importlib.import_module(name)
        stages = Stages(line, record, stack, options["fail"])
    except BaseException as error:
        line.send(pickle.dumps({"error": remote.throw(error, __file__)}))
        os._exit(1)
    stages.restore()
    answer = stages.stage("fence", _fence, b"") if options["fence"] else {"value": remote.pack(False)}
    process.set_title("labkit:ready")
    stages.answer({**answer, "pid": os.getpid()})
    stages.run()


def _fence(_: bytes) -> bool:
    """Go on in a mount namespace of one's own, from which no mount reaches the machine.

    What is shared on the machine is shared among the fence's own copies: as a learner would
    find it there, and yet apart from it.  Without the right to mount there is nothing to fence.
    """
    if "CAP_SYS_ADMIN" not in capabilities.names(capabilities.held()["CapEff"]):
        return False
    shared = any(" shared:" in one.partition(" - ")[0] for one in mounts.lines() if one.split(" ")[4] == "/")
    syscalls.call("unshare", C.CLONE_NEWNS)
    mounts.propagate("/", "rslave")
    if shared:
        mounts.propagate("/", "rshared")
    return True


def _do(body: bytes) -> Any:
    try:
        function, arguments, cell = pickle.loads(body)
    except ModuleNotFoundError as error:
        raise LabError(
            f"the function could not be loaded in the child: {error}",
            why="it uses a module that the child had not imported, and cannot find from where it is now",
            next=f"Child(..., imports=[{error.name!r}]) imports it before the first stage",
        ) from error
    for name, lines in cell.items():
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    return function(*arguments)


def _spawn(body: bytes) -> int:
    """Start a program; its pid.  Numbered as this process sees it, whose own pid namespace never changes."""
    words = pickle.loads(body)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and execve would pass that on
        try:
            os.execvp(words[0], words)
        except OSError as error:
            os.write(writing, struct.pack("<i", error.errno))
        os._exit(127)
    os.close(writing)
    failed = os.read(reading, 4)
    os.close(reading)
    if failed:
        os.waitpid(pid, 0)
        (code,) = struct.unpack("<i", failed)
        raise NotFound(f"cannot start {words[0]} in the child", why=f"{os.strerror(code)} (errno {code})", status=127)
    return pid


VERBS: dict[str, Callable[[bytes], Any]] = {"do": _do, "spawn": _spawn}


def _leave(code: int) -> NoReturn:
    _flush()
    os._exit(code & 0xFF)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # closed by the function


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
        return True
    except OSError:
        return False


def _move(fd: int, base: int) -> int:
    """The same open file under a number from `base` on, closed at execve."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, base)
    os.close(fd)
    return high
