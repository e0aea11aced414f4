"""Floor 1: the pids controller: how many processes and threads.

Owns: its limit and readings.

    pids.limit(group, 40); pids.use(group).current; pids.events(group)

Read: Documentation/admin-guide/cgroup-v2.rst, "PID".
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from labkit.errors import Refused
from labkit.kernel.cgroups import forms, tree


class Use(NamedTuple):
    """Processes and threads now, and at most so far (0 before Linux 6.1)."""

    current: int
    peak: int


def limit(group: Path, most: int | None, *, below_use: bool = False) -> None:
    """At most so many processes and threads, in the cgroup and below; None is no limit.

    below_use -- allow fewer than there are: nobody is ended, and no fork succeeds until enough
    have.  Without it that is Refused, and nothing is changed.  Raises LabError.
    """
    if most is not None and not below_use and forms.has(group, "pids.current"):
        there = use(group).current
        if most < there:
            raise Refused(
                f"pids.max of {group} is not set to {most}",
                why=f"{there} processes and threads are there: no fork would succeed until {there - most} have ended",
                next="a larger limit, or below_use=True",
            )
    tree.limit(group, {"pids.max": forms.word(most)})


def limits(group: Path) -> int | None:
    """What is set now; None is no limit. Raises LabError."""
    return forms.amount(forms.read(group, "pids.max"))


def use(group: Path) -> Use:
    """How many there are, and were at most. Raises LabError."""
    peak = int(forms.read(group, "pids.peak")) if forms.has(group, "pids.peak") else 0
    return Use(int(forms.read(group, "pids.current")), peak)


def events(group: Path) -> int:
    """How often a fork was refused at this cgroup's limit (EAGAIN). Raises LabError."""
    return forms.flat(forms.read(group, "pids.events")).get("max", 0)
