"""Top floor: the check of kill-tree.

Owns: three cgroups in each other with bombs in them, and a neighbour that nobody may touch.
Read: Documentation/admin-guide/cgroup-v2.rst on cgroup.kill and cgroup.events.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from labkit.kernel.syscalls import clone3
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

MOST = 24  # processes in all


def check(end: Callable[[Path], None], lab: Ground) -> None:
    """Look at what is left of the tree, of its processes and of the neighbour."""
    top = lab.cgroup()
    group, neighbour = top / lab.token(), top / lab.token()
    deep = group / lab.token() / lab.token()
    deep.mkdir(parents=True)
    neighbour.mkdir()
    (group / "pids.max").write_text(str(MOST))
    maker, caller = lab.child("maker"), lab.child("caller")  # while there is room for them
    bystander = maker.do(into, str(neighbour), False)
    for place in (group, deep):
        maker.do(into, str(place), True)
    lab.until(lambda: count(group) >= MOST // 2, 10, "the bombs did not start")
    try:
        caller.do(end, group, limit=15.0)
    except OSError as error:
        raise Wrong(f"end() raised {error.strerror}: {left(lab, group, Path(error.filename or group))}") from error
    if group.exists():
        raise Wrong(f"the folder is still there: {left(lab, group, group)}")
    if str(bystander) not in (neighbour / "cgroup.procs").read_text().split():
        raise Wrong(f"process {bystander} was killed too, and it sat in {neighbour.name}, beside the group")


def left(lab: Ground, group: Path, stuck: Path) -> str:
    """Who or what is still in the group, after everybody who was killed had the time to go.

    stuck -- the folder that could not be removed
    """
    try:
        lab.until(lambda: count(group) == 0, 3.0)
    except Wrong:
        return (f"{count(group)} processes are alive in it. Killed one by one, they fork faster than the list is read; "
                "or the kill did not reach all of them")  # fmt: skip
    except FileNotFoundError:
        pass
    if deeper := [path.name for path in stuck.rglob("*") if path.is_dir()]:
        return f"nobody is alive in it, and a cgroup is: {', '.join(deeper)}. The deepest must go first"
    return "all were killed, but the kernel had not let go of them yet: wait until cgroup.events says populated 0"


def count(group: Path) -> int:
    """How many processes are in the group and below."""
    return sum(len(file.read_text().split()) for file in group.rglob("cgroup.procs"))


def into(group: str, bomb: bool) -> int:
    """In a child: a process in the cgroup that sleeps, or one that forks without end; its pid."""
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    pid = clone3(0, cgroup_fd=folder)
    os.close(folder)
    if pid:
        return pid
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        born = 0
        # Fork twice and end, or once where there is no room for more: no list of numbers is ever up to date.
        while bomb and born < 2:
            try:
                born = 0 if os.fork() == 0 else born + 1
            except OSError:
                born *= 2
        if bomb:
            os._exit(0)
        signal.pause()
    finally:
        os._exit(1)
