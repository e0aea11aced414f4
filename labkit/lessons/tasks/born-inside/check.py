"""Top floor: the check of born-inside.

Owns: where the program and its parent must be, and the full cgroup in which nobody may be born.
Read: clone(2) on CLONE_INTO_CGROUP; cgroup-v2.rst on pids.max, which a move does not ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import container as see


def check(start: Callable[[Path, list[str]], int], lab: Ground) -> None:
    """Look where the program is; then let it be born where the limit is reached already."""
    group = lab.cgroup() / lab.token()
    group.mkdir()
    words = ["sleep", str(lab.number(10_000, 99_999))]
    caller = lab.child("caller")
    before, held = see.cgroup(caller.pid), descriptors(caller.pid)
    pid = caller.do(start, group, words)
    if see.cgroup(caller.pid) != before:
        raise Wrong(f"the caller itself, process {caller.pid}, is now in the cgroup")
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise Wrong(f"start() gave back {pid!r}, which is no pid")
    lab.until(lambda: command(pid) == words, what=f"process {pid} runs {command(pid)}, and not {words}")
    if see.cgroup(pid) != group:
        raise Wrong(f"process {pid} runs in {see.cgroup(pid)}, and not in {group}")
    if left := descriptors(caller.pid) - held:
        raise Wrong(f"the caller has still open: {', '.join(sorted(left))}")
    (group / "pids.max").write_text("1")
    try:
        second = caller.do(start, group, words)
    except OSError:
        second = None
    if second is not None and lab.until(lambda: see_inside(second, group) or not command(second)) is True:
        raise Wrong(f"the limit does not hold for the birth: pids.max is 1, and process {second} runs beside {pid}. "
                    "It was born elsewhere, and a move into a cgroup is never refused")  # fmt: skip
    if second is not None:
        raise Wrong(f"pids.max is 1, nobody can be born beside process {pid}, and start() gave back {second!r}: "
                    "let the error through")  # fmt: skip


def see_inside(pid: int, group: Path) -> bool:
    """Whether the process is in the cgroup by now."""
    return str(pid) in (group / "cgroup.procs").read_text().split()


def descriptors(pid: int) -> set[str]:
    """What the process has open."""
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}


def command(pid: int) -> list[str]:
    """The words of the program that a process runs; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
