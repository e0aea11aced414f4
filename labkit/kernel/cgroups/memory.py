"""Floor 1: the memory controller: what a cgroup may use, uses, and was refused.

Owns: its limits and readings, in bytes.  None is "no limit" everywhere.

    memory.limit(group, max=256 << 20, high=200 << 20)
    memory.use(group).peak, memory.events(group).oom_kill, memory.limits(group).high

Read: Documentation/admin-guide/cgroup-v2.rst, "Memory".
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError, Refused
from labkit.kernel.cgroups import forms, tree
from labkit.kernel.cgroups.keep import KEEP, Kept

# field of Limits: file.  Those protections and thresholds that hold bytes.
FILES = {
    "min": "memory.min",  # never reclaimed
    "low": "memory.low",  # reclaimed only when nothing else is left
    "high": "memory.high",  # beyond it allocation is slowed down and memory reclaimed
    "max": "memory.max",  # beyond it, and nothing to reclaim: the OOM killer
    "swap_high": "memory.swap.high",
    "swap_max": "memory.swap.max",  # swap alone; not memory and swap, as in version 1
}


class Limits(NamedTuple):
    """Bytes; None is no limit, and also what a kernel without that file has."""

    min: int | None
    low: int | None
    high: int | None
    max: int | None
    swap_high: int | None
    swap_max: int | None
    oom_group: bool  # the OOM killer takes all of the cgroup's processes, or one


class Use(NamedTuple):
    """Bytes now, and at most so far (0 where this kernel does not count it)."""

    current: int
    peak: int  # Linux 5.19
    swap_current: int
    swap_peak: int  # Linux 6.5


class Events(NamedTuple):
    """How often each boundary was met, in the cgroup and below."""

    low: int  # reclaimed although below its protection
    high: int  # slowed down at memory.high
    max: int  # met memory.max
    oom: int  # nothing could be reclaimed
    oom_kill: int  # processes that the OOM killer ended
    oom_group_kill: int  # times that it ended all of a cgroup (Linux 5.17)


def limit(
    group: Path,
    *,
    min: int | Kept | None = KEEP,
    low: int | Kept | None = KEEP,
    high: int | Kept | None = KEEP,
    max: int | Kept | None = KEEP,
    swap_high: int | Kept | None = KEEP,
    swap_max: int | Kept | None = KEEP,
    oom_group: bool | Kept = KEEP,
    below_use: bool = False,
) -> None:
    """Set what is mentioned, in bytes; None takes a limit away.

    below_use -- allow a max below what is used now: the kernel then reclaims, and kills when
    that is not enough.  Without it that is Refused, and nothing is changed.
    Raises LabError for a cgroup that is gone or has no memory controller.
    """
    wanted = {"min": min, "low": low, "high": high, "max": max, "swap_high": swap_high, "swap_max": swap_max}
    given = {FILES[name]: forms.word(value) for name, value in wanted.items() if value is not KEEP}
    if oom_group is not KEEP:
        given["memory.oom.group"] = str(int(oom_group))
    if max is not KEEP and max is not None and not below_use:
        _not_below_use(group, max)
    tree.limit(group, given)


def _not_below_use(group: Path, most: int) -> None:
    if not forms.has(group, "memory.current"):
        return  # writing the limit says why
    used = use(group).current
    if most < used:
        raise Refused(
            f"memory.max of {group} is not set to {forms.size(most)}",
            why=f"{forms.size(used)} are in use there: the kernel would reclaim, and kill what does not fit",
            next="memory.reclaim(group, bytes) first, a larger limit, or below_use=True to let that happen",
        )


def limits(group: Path) -> Limits:
    """What is set now. Raises LabError."""
    required = ("min", "low", "high", "max")
    found = {name: _amount(group, file, required=name in required) for name, file in FILES.items()}
    oom_group = forms.has(group, "memory.oom.group") and forms.read(group, "memory.oom.group") == "1"
    return Limits(**found, oom_group=oom_group)


def _amount(group: Path, file: str, *, required: bool) -> int | None:
    if not required and not forms.has(group, file):
        return None
    return forms.amount(forms.read(group, file))


def use(group: Path) -> Use:
    """What is used now, and was at most. Raises LabError."""
    current = int(forms.read(group, "memory.current"))
    rest = ("memory.peak", "memory.swap.current", "memory.swap.peak")
    return Use(current, *(int(forms.read(group, name)) if forms.has(group, name) else 0 for name in rest))


def stat(group: Path) -> dict[str, int]:
    """memory.stat: bytes of anon, file, kernel, slab, ...; counts of pgfault, pgscan, ... Raises LabError."""
    return forms.flat(forms.read(group, "memory.stat"))


def events(group: Path, *, local: bool = False) -> Events:
    """memory.events; `local` leaves the cgroups below out. Raises LabError.

    To wait for one: labkit.kernel.cgroups.events.Watch(group, "memory.events").
    """
    found = forms.flat(forms.read(group, "memory.events.local" if local else "memory.events"))
    return Events(*(found.get(name, 0) for name in Events._fields))


def working_set(group: Path) -> int:
    """Bytes without the page cache that could go at once: what its processes really hold on to. Raises LabError."""
    current, cache = use(group).current, stat(group).get("inactive_file", 0)
    return current - cache if cache < current else current


def reclaim(group: Path, count: int) -> int:
    """Ask the kernel to take back `count` bytes now (memory.reclaim, Linux 5.19); how many were.

    Less than asked for is no error: what cannot be written out anywhere stays.  Raises LabError.
    """
    before = use(group).current
    try:
        tree.write(group / "memory.reclaim", str(count))
    except LabError as error:
        if not isinstance(error.__cause__, BlockingIOError):  # EAGAIN: not all of it
            raise
    after = use(group).current
    return max(0, before - after)  # others may have taken more meanwhile
