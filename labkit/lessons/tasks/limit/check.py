"""Top floor: the check of limit.

Owns: what the three files must hold, and who must be in the cgroup.
Read: Documentation/admin-guide/cgroup-v2.rst on memory.max, cpu.max, pids.max and cgroup.procs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import container as see

MIB = 1 << 20


def check(limit: Callable[[Path, str, int, float, int, int], None], lab: Ground) -> None:
    """Read the new cgroup's files, and ask the kernel where the process and its parent are."""
    parent, name = lab.cgroup(), lab.token()
    memory, cpus, pids = lab.number(20, 900) * MIB, lab.number(1, 15) / 4, lab.number(50, 900)
    caller = lab.child("caller")
    before = see.cgroup(caller.pid)
    pid = caller.spawn("sleep", "1000")
    caller.do(limit, parent, name, memory, cpus, pids, pid)
    group = parent / name
    if not group.is_dir():
        made = [path.name for path in parent.iterdir() if path.is_dir()]
        raise Wrong(f"there is no cgroup {name} below {parent.name}; below it: {', '.join(made) or 'none'}")
    if see.cgroup(caller.pid) != before:
        raise Wrong(f"the caller itself, process {caller.pid}, was moved into the cgroup; asked for was process {pid}")
    if above := [file for file in ("memory.max", "cpu.max", "pids.max") if not text(parent / file).startswith("max")]:
        raise Wrong(f"the limit stands in the parent: its {above[0]} is {text(parent / above[0])}, "
                    "and holds for all cgroups below")  # fmt: skip
    wanted = {"memory.max": f"{memory}", "cpu.max": f"{round(cpus * 100_000)} 100000", "pids.max": f"{pids}"}
    for file, value in wanted.items():
        if (found := text(group / file)) != value:
            raise Wrong(f"{file} is {found}; asked for were {memory} bytes, {cpus:g} CPUs, {pids} processes")
    if see.cgroup(pid) != group:
        raise Wrong(f"the limits are right and hold for nobody: process {pid} is in {see.cgroup(pid)}")


def text(file: Path) -> str:
    return file.read_text().strip()
