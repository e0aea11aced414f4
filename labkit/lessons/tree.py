"""Top floor: everything below one process, found and ended.

Owns: walking from a process to all its descendants and ending them so that none escapes by
forking meanwhile: first all are stopped, until a walk finds no new one; then all are killed;
and with PR_SET_CHILD_SUBREAPER the end is certain, since it is the moment when the kernel
says that there is no child left to wait for.

Read: PR_SET_CHILD_SUBREAPER(2const), proc_pid_task(5) on `children`, wait(2), signal(7).
"""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple


class Left(NamedTuple):
    """A process that was found running when its tree was ended."""

    pid: int
    parent: int
    name: str
    command: str


def children(pid: int) -> list[int]:
    """The children of `pid`, all its threads' ones; none when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        pass
    return found


def below(pid: int) -> list[int]:
    """All descendants of `pid`, parents before children; the dead that nobody has waited for are among them."""
    found = children(pid)
    for one in found:  # grows while it is walked
        found += children(one)
    return found


def describe(pid: int) -> Left | None:
    """Who that is; None when it is gone or dead."""
    stat = _read(f"/proc/{pid}/stat")
    fields = stat.rpartition(") ")[2].split()
    if not fields or fields[0] in "ZX":
        return None
    words = _read(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")
    return Left(pid, int(fields[1]), stat.partition("(")[2].rpartition(")")[0], " ".join(words))


def end_below(pid: int, *, patience: float = 10.0) -> list[Left]:
    """End every descendant of `pid`; who they were. Waits for them when `pid` is this process.

    Stops waiting after `patience` seconds: a process may be held in the kernel, or be another user's.
    """
    deadline = time.monotonic() + patience
    found: dict[int, Left | None] = {}
    while fresh := [one for one in below(pid) if one not in found]:
        for one in fresh:
            _signal(one, signal.SIGSTOP)
            found[one] = describe(one)
    own = pid == os.getpid()
    while time.monotonic() < deadline:
        alive = below(pid)
        for one in alive:
            _signal(one, signal.SIGKILL)
        if reaped() if own else not any(map(describe, alive)):
            break
        time.sleep(0.001)
    return [left for left in found.values() if left]


def end_marked(mark: str, *, patience: float = 10.0) -> list[Left]:
    """End the processes that have NAME=VALUE in their environment, for a tree whose root is gone; who they were."""
    found: dict[int, Left] = {}
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        alive = [left for left in map(describe, pids) if left and _is_marked(left.pid, mark)]
        if not alive:
            break
        for left in alive:
            found.setdefault(left.pid, left)
            _signal(left.pid, signal.SIGKILL)
        time.sleep(0.001)
    return list(found.values())


def _is_marked(pid: int, mark: str) -> bool:
    return mark in _read(f"/proc/{pid}/environ").split("\0")


def reaped() -> bool:
    """Wait for every child that has ended; whether none is left at all."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return False
        except ChildProcessError:
            return True


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
