"""Top floor: what one piece of work changed in the kernel, and which system calls made it so.

Owns: which changes are the work's own on a machine where others work too, and which programs
it started, whose system calls labkit's record cannot have.

What is looked at: the processes below this one, and what only they hold.  Of the namespaces that
are shared with the rest of the machine, a change counts as the work's own when one of its
calls or programs named it.  A stage child is looked at from its first stage on: neither the
guardian nor the fence is part of what a cell says.

Read: labkit/observe/scope.py for the tree; sys.addaudithook, and the table of audit events.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

from labkit.kernel import syscalls
from labkit.lessons import child
from labkit.observe import difference, difference_mounts, mountinfo, snapshot
from labkit.observe.model import Change, Process, Snapshot
from labkit.observe.mountinfo import Mount

GUARDIAN = "labkit-guardian"
# Audit events by which this process starts another: which argument is the program, and which its words.
STARTS = {"subprocess.Popen": (0, 1), "os.posix_spawn": (0, 1), "os.exec": (0, 1)}
SHELLS = {"os.system": 0}
FORKS = {"os.fork", "os.forkpty"}

_watching: list[Xray] = []
_hooked = False


class Seen(NamedTuple):
    """What came of one piece of work."""

    changes: list[Change]
    calls: list[syscalls.Call]
    programs: list[str]  # command lines of programs that it started; their calls are not in `calls`
    forks: int  # times that it forked by itself, besides those

    @property
    def unseen(self) -> str:
        """What the record cannot tell, in one sentence; empty when it tells everything."""
        parts = []
        if self.programs:
            some = ", ".join(self.programs[:3]) + (" and others" if len(self.programs) > 3 else "")
            parts.append(f"made by programs that this started ({some}): strace -f shows them")
        if self.forks:
            parts.append(f"made after a fork of the notebook's own process ({self.forks})")
        return f"Not in this record: the system calls {'; and those '.join(parts)}." if parts else ""


class Xray:
    """Looks before and after: with Xray() as ray: ...; then ray.seen."""

    def __init__(self) -> None:
        self.seen = Seen([], [], [], 0)
        self._born: list[tuple[child.Child, Snapshot]] = []
        self._fences: set[str] = set()  # left by its child, a fence is gone: no change that a cell is about
        self._programs: list[str] = []
        self._forks = 0

    def __enter__(self) -> Xray:
        _hook()
        self._visitor = snapshot.Visitor()
        self._recording = syscalls.recording()
        self._before = self._look()
        self._mounts = tuple(mountinfo.read())
        child.on_start.append(self._birth)
        _watching.append(self)
        self._calls = self._recording.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._recording.__exit__(None, None, None)
            _watching.remove(self)
            child.on_start.remove(self._birth)
            after = self._look()
            spawned = [stage.name.removeprefix("spawn ") for one, _ in self._born for stage in one.stages
                       if stage.name.startswith("spawn ")]  # fmt: skip
            programs = [*self._programs, *spawned]
            before = self._before
            for one, then in self._born:
                # One that came and went is no change at all.
                before = merge(before, then) if one.pid in after.processes else before
            changes = difference.compare(before, self._named_as_before(after))
            changes = [one for one in changes if not (one.sign == "-" and one.name in self._fences)]
            named = _named(self._calls, programs)
            changes[:0] = [one for one in self._shared() if one.name in named]
            self.seen = Seen(changes, self._calls, programs, self._forks)
        finally:
            self._visitor.close()

    def _look(self) -> Snapshot:
        return without(snapshot.take(snapshot.Tree(os.getpid()), visitor=self._visitor), GUARDIAN)

    def _birth(self, one: child.Child) -> None:
        """A stage child was started: how it is now belongs to what was there before."""
        now = snapshot.take(snapshot.Tree(one.pid), visitor=self._visitor)
        if one.fenced:
            self._fences.add(f"mnt:[{now.processes[one.pid].namespaces['mnt']}]")
        processes = {pid: _titled(seen, one) if pid == one.pid else seen for pid, seen in now.processes.items()}
        self._born.append((one, now._replace(processes=processes)))

    def _named_as_before(self, after: Snapshot) -> Snapshot:
        """A stage child's title moves on with its stages; that is no change of the kernel's. It has its own name."""
        processes = dict(after.processes)
        for one, _ in self._born:
            if one.pid in processes:
                processes[one.pid] = _titled(processes[one.pid], one)
        return after._replace(processes=processes)

    def _shared(self) -> Iterator[Change]:
        """Changes of the mount table that this process shares with others."""
        now: tuple[Mount, ...] = tuple(mountinfo.read())
        yield from difference_mounts.tables(self._mounts, now, lambda mount: (mount.number, mount.place))


def _titled(seen: Process, one: child.Child) -> Process:
    return seen._replace(name=one.name, command=())


def without(seen: Snapshot, name: str) -> Snapshot:
    """The snapshot without the processes of this name; who they were parents of comes one step up."""
    gone = {pid: one.parent for pid, one in seen.processes.items() if one.name == name}
    return seen._replace(
        processes={pid: _adopted(one, gone) for pid, one in seen.processes.items() if pid not in gone},
        namespaces={key: space._replace(members=tuple(pid for pid in space.members if pid not in gone))
                    for key, space in seen.namespaces.items()},
    )  # fmt: skip


def _adopted(one: Process, gone: dict[int, int]) -> Process:
    parent = one.parent
    while parent in gone:
        parent = gone[parent]
    return one._replace(parent=parent)


def merge(first: Snapshot, second: Snapshot) -> Snapshot:
    """Both together; what both have is as the second has it."""
    return Snapshot(
        {**first.processes, **second.processes},
        {**first.namespaces, **second.namespaces},
        {**first.mounts, **second.mounts},
        {**first.cgroups, **second.cgroups},
        {**first.networks, **second.networks},
        {**first.origins, **second.origins},
    )


def _named(calls: Iterable[syscalls.Call], programs: Iterable[str]) -> set[str]:
    """Every word that a call or a program was given."""
    found = {os.fsdecode(word) for call in calls for word in call.arguments if isinstance(word, (str, bytes))}
    for line in programs:
        try:
            found.update(shlex.split(line))
        except ValueError:  # a quote that never closes
            found.update(line.split())
    return found


def _hook() -> None:
    """Hear of programs that this process starts; a hook cannot be taken away, so there is one for all."""
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in STARTS:
        program, words = (arguments[place] for place in STARTS[event])
        line = (
            shlex.join(_text(word) for word in words) if isinstance(words, (list, tuple)) else _text(words or program)
        )
        if "labkit.lessons.child_main" in line or "labkit.observe" in line:
            return  # the stage child's own guardian, and whoever reads networks for a snapshot
        for ray in _watching:
            ray._programs.append(line)
    elif event in SHELLS:
        for ray in _watching:
            ray._programs.append(_text(arguments[SHELLS[event]]))
    elif event in FORKS:
        for ray in _watching:
            ray._forks += 1


def _text(word: object) -> str:
    return os.fsdecode(word) if isinstance(word, (str, bytes, os.PathLike)) else str(word)
