"""Top floor: the ground on which a check tries a learner's function.

Owns: everything that a check takes (children, folders, the fence) and giving it back,
whatever the learner's function did.

The fence is a set of namespaces around each attempt.  A function that forgets its
unshare changes the fence's host name and mounts, which the check can see and which end
with it, and not those of the machine.  Mounts inside the fence are shared among
themselves, as on a machine that systemd started, and with nothing outside.

Read: namespaces(7), mount_namespaces(7) on peer groups, rmdir(2).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import string
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labkit.kernel import mounts, namespaces
from labkit.lessons import plot
from labkit.lessons.child import Child
from labkit.lessons.outcome import Wrong
from labkit.lessons.plot import Plot
from labkit.lessons.task import FENCE
from labkit.observe import mountinfo

LIMIT = 20.0  # seconds for one stage of a learner's function
PREFIX = "labkit-exercise-"


class Attempt(Child):
    """A child whose exceptions can be told from the check's own."""

    def do(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return super().do(function, *arguments, **options)
        except BaseException as error:
            # Every exception of the child's comes with this note; an interrupted cell's does not.
            came_back = any(note.startswith("In the stage ") for note in getattr(error, "__notes__", []))
            if came_back or isinstance(error, Exception):
                error.theirs = True  # type: ignore[attr-defined]
            raise


class Ground:
    """What a check calls `lab`.  Everything that it hands out is given back at the end of the `with`."""

    def __init__(self, name: str, fence: tuple[str, ...] = FENCE, controllers: tuple[str, ...] = ()) -> None:
        self.name = name
        self.kinds = fence
        self._controllers = controllers
        self._children: list[Child] = []
        self._folders: list[Path] = []
        self._plots: list[Plot] = []
        self._fence: Child | None = None
        self._random = random.SystemRandom()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def outside(self) -> int:
        """The pid of a process that stands where the attempt began: "the machine", as the learner's function sees it."""  # noqa: E501
        if self._fence is None:
            self._fence = self._started(f"{self.name}-fence", Child, fence=False)
            self._fence.do(_raise_fence, list(self.kinds), stage="fence")
        return int(self._fence.pid)

    def child(self, name: str = "", *, fenced: bool = True, **options: Any) -> Child:
        """A new stage child (labkit.lessons.Child) inside the fence; `do` runs the learner's function in it."""
        pid = self.outside if fenced and self.kinds else None
        # Processes that outlive a stage are for the check to judge; all end with the attempt.
        options = {"leaves": True, "fence": fenced and pid is None, **options}
        one = self._started(f"{self.name}-{name or len(self._children)}", Attempt, **options)
        if pid is not None:
            Child.do(one, namespaces.join, pid, list(self.kinds), stage="fence")
            # As with a child's own fence: not among the calls that its stages made.
            one.setup.calls.extend(one.calls)
            one.stages.clear()
        return one

    def _started(self, name: str, kind: type[Child], **options: Any) -> Child:
        one = kind(name, **options)
        self._children.append(one)
        return one.__enter__()

    def call(self, function: Callable[..., Any], *arguments: Any, limit: float = LIMIT) -> Any:
        """Run the learner's function in a fresh child that ends with it; its return value."""
        one = self.child()
        try:
            return one.do(function, *arguments, stage=_word(function), limit=limit)
        finally:
            one.close()
            self._children.remove(one)

    def inside(self, pid: int, kinds: list[str], question: Callable[..., Any], *arguments: Any) -> Any:
        """Ask a question of labkit's or Python's own in the namespaces of `pid` (which it does not leave changed).

        `pid` in `kinds` is not allowed for: the asker itself stays in its pid namespace (setns(2)).
        """
        one = self._started(f"{self.name}-look", Child, fence=False)
        try:
            one.do(namespaces.join, pid, kinds, stage="look")
            return one.do(question, *arguments, stage="look")
        finally:
            one.close()
            self._children.remove(one)

    def token(self, length: int = 8) -> str:
        """A random word of small letters, new in each call."""
        return "".join(self._random.choice(string.ascii_lowercase) for _ in range(length))

    def number(self, low: int, high: int) -> int:
        """A random number, both ends included."""
        return self._random.randint(low, high)

    def folder(self) -> Path:
        """A new empty folder; it goes at the end, with all mounts in it."""
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{self.name}-{os.getpid()}-")).resolve()
        self._folders.append(path)
        return path

    def cgroup(self) -> Path:
        """A new cgroup that hands on the task's `controllers`; it goes at the end, with all that runs in it."""
        made = Plot(f"{PREFIX}{self.name}-{os.getpid()}-{len(self._plots)}", self._controllers)
        self._plots.append(made)
        return made.path

    def until(self, question: Callable[[], Any], seconds: float = 5.0, what: str = "it did not come true") -> Any:
        """Ask until the answer is true, and return it.

        Raises Wrong(what) after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            if time.monotonic() > deadline:
                raise Wrong(f"{what} (waited {seconds:g} s)")
            time.sleep(0.01)
        return answer

    def close(self) -> None:
        """Give everything back, in the opposite order of taking; what fails does not stop the rest."""
        with contextlib.ExitStack() as stack:
            for path in self._folders:
                stack.callback(remove, path)
            for made in self._plots:
                stack.callback(made.close)
            for one in self._children:
                stack.callback(one.close)
            self._folders, self._plots, self._children, self._fence = [], [], [], None


def _raise_fence(kinds: list[str]) -> None:
    namespaces.leave(kinds)
    if "mnt" in kinds:
        mounts.propagate("/", "rprivate")
        mounts.propagate("/", "rshared")


def _word(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "answer")


def remove(path: Path) -> None:
    """Unmount all that is mounted in a folder and remove it; nothing is removed through a mount."""
    for mount in reversed(list(_below(path))):
        with contextlib.suppress(OSError):
            mounts.unmount(mount, detach=True)
    if left := list(_below(path)):
        raise OSError(f"{path} stays: {', '.join(left)} cannot be unmounted")
    shutil.rmtree(path, ignore_errors=True)


def _below(path: Path) -> Iterator[str]:
    for mount in mountinfo.read():
        if Path(mount.place).is_relative_to(path):
            yield mount.place


def sweep(name: str) -> list[str]:
    """Remove the folders and cgroups that attempts of an exercise left behind when they were killed; which."""
    found = plot.sweep(f"{PREFIX}{name}-")
    for path in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}{name}-*"):
        owner = path.name.removeprefix(f"{PREFIX}{name}-").split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            remove(path)
            found.append(str(path))
    return found
