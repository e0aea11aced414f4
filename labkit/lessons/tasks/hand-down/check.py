"""Top floor: the check of hand-down.

Owns: a chain of cgroups with processes that sit in the way and others that do not.
Read: Documentation/admin-guide/cgroup-v2.rst, "Top-down Constraint" and "No Internal Process Constraint".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import container as see

ALL = ("memory", "pids")


def check(hand_down: Callable[[Path, Path, list[str]], None], lab: Ground) -> None:
    """Look at what each cgroup of the chain hands on, and where everybody sits."""
    top = lab.cgroup()
    middle = top / lab.token()
    group = middle / lab.token()
    child, beside = group / lab.token(), middle / lab.token()
    for folder in (middle, group, child, beside):
        folder.mkdir()
    names = [random.choice(ALL)]
    caller = lab.child("caller")
    sits = {caller.spawn("sleep", "1000"): place for place in (middle, group, group, child, beside)}
    for pid, place in sits.items():
        (place / "cgroup.procs").write_text(str(pid))
    try:
        caller.do(hand_down, top, group, names)
    except OSError as error:
        raise Wrong(refused(error, sits)) from error
    for place in (middle, group):
        handed = (place / "cgroup.subtree_control").read_text().split()
        if not set(names) <= set(handed):
            raise Wrong(f"{place.name} hands on {' '.join(handed) or 'nothing'}, asked for was {' '.join(names)}")
        if extra := set(handed) - set(names):
            raise Wrong(f"{place.name} hands on {' '.join(extra)} too, and nobody asked for it")
    for pid, place in sits.items():
        wanted = place / "leaf" if place in (middle, group) else place
        if (now := see.cgroup(pid)) != wanted:
            raise Wrong(f"process {pid} sat in {place.relative_to(top)}, and is now in {now}; its place is {wanted}")


def refused(error: OSError, sits: dict[int, Path]) -> str:
    """What to say when the kernel refused a write."""
    said = f"the kernel said: {error.strerror}"
    if error.errno == 2:
        return f"{said}. A cgroup hands on what its own parent has handed to it: begin at the top"
    sitting = [f"{pid} in {place.name}" for pid, place in sits.items() if see.cgroup(pid) == place]
    if error.errno == 16:
        return f"{said}. A cgroup has processes or hands controllers on. Still there: process {', '.join(sitting)}"
    return f"{said}; the words have a sign, +memory"
