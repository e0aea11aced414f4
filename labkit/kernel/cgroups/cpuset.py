"""Floor 1: the cpuset controller: which processors and which memory nodes.

Owns: its limits and readings, as sets of numbers.

    cpuset.limit(group, cpus={0, 2}); cpuset.limits(group).cpus_effective

Switching this controller on for the first time rewrites code of the running kernel; an emulated
machine of two processors has died of it, so that nothing here does so unasked.

Read: Documentation/admin-guide/cgroup-v2.rst, "Cpuset".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from labkit.errors import Refused
from labkit.kernel.cgroups import forms, tree
from labkit.kernel.cgroups.keep import KEEP, Kept


class Limits(NamedTuple):
    """Numbers of processors and memory nodes; an empty set asks for all that the cgroup above has."""

    cpus: frozenset[int]
    mems: frozenset[int]
    cpus_effective: frozenset[int]  # what is granted
    mems_effective: frozenset[int]
    partition: str  # member, root or isolated


def limit(group: Path, *, cpus: Iterable[int] | Kept = KEEP, mems: Iterable[int] | Kept = KEEP) -> None:
    """Set what is mentioned; an empty set takes the limit away.

    The kernel takes processors that the cgroup above does not have, and then grants what it can;
    here that is Refused, and nothing is changed.  Raises LabError.
    """
    for name, wanted in (("cpus", cpus), ("mems", mems)):
        if wanted is KEEP:
            continue
        numbers = frozenset(wanted)
        file = f"cpuset.{name}"
        if forms.has(group.parent, f"{file}.effective"):
            there = forms.numbers(forms.read(group.parent, f"{file}.effective"))
            if not numbers <= there:
                raise Refused(
                    f"{file} of {group} is not set to {forms.listed(numbers)}",
                    why=f"{group.parent} has {forms.listed(there)}",
                    next="numbers among these",
                )
        # The line end: an empty write(2) would not reach the file.
        tree.limit(group, {file: forms.listed(numbers) + "\n"})


def limits(group: Path) -> Limits:
    """What is set and what is granted now. Raises LabError."""
    files = ("cpuset.cpus", "cpuset.mems", "cpuset.cpus.effective", "cpuset.mems.effective")
    found = [forms.numbers(forms.read(group, file)) for file in files]
    partition = forms.read(group, "cpuset.cpus.partition") if forms.has(group, "cpuset.cpus.partition") else "member"
    return Limits(found[0], found[1], found[2], found[3], partition)
