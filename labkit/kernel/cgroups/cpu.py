"""Floor 1: the cpu controller: the share, the ceiling, and what was used and withheld.

Owns: its limits and readings; CPUs as a number (0.5 is half of one), times in seconds.

    cpu.limit(group, cpus=0.2)             # cpu.max "20000 100000"
    cpu.limit(group, weight=300)           # three times the default, when others want to run too
    later, earlier = cpu.stat(group), before
    (later.usage - earlier.usage) / wall   # CPUs used

Read: Documentation/admin-guide/cgroup-v2.rst, "CPU"; Documentation/scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from labkit.errors import BadInput
from labkit.kernel.cgroups import forms, tree
from labkit.kernel.cgroups.keep import KEEP, Kept

MICRO = 1_000_000  # microseconds in a second; all of the controller's files count in them
PERIOD = 0.1  # seconds: the kernel's own default
LEAST = 0.001  # seconds: the least quota and period that the kernel takes


class Limits(NamedTuple):
    """quota seconds of CPU time in each period of `period` seconds; None is no ceiling."""

    quota: float | None
    period: float
    weight: int  # 1 to 10000, 100 is the default; 0 while `idle`
    burst: float  # seconds that unused quota may add up to (Linux 5.14)
    idle: bool  # runs only when nobody else wants to (Linux 5.15)

    @property
    def cpus(self) -> float | None:
        """The ceiling as a number of CPUs."""
        # In microseconds, as the kernel keeps them: 0.02 / 0.1 is not 0.2.
        return None if self.quota is None else round(self.quota * MICRO) / round(self.period * MICRO)


class Stat(NamedTuple):
    """Times in seconds since the cgroup was made; counts of enforcement periods."""

    usage: float
    user: float
    system: float
    periods: int  # in which somebody wanted to run; 0 without a ceiling
    throttled_periods: int  # nr_throttled: those in which the quota ran out
    throttled: float  # how long runnable threads had to wait for the next period, summed over CPUs
    bursts: int
    burst: float


def limit(
    group: Path,
    *,
    cpus: float | Kept | None = KEEP,
    period: float = PERIOD,
    weight: int | Kept = KEEP,
    burst: float | Kept = KEEP,
    idle: bool | Kept = KEEP,
) -> None:
    """Set what is mentioned; cpus None takes the ceiling away.

    A shorter `period` (seconds) spreads the same CPUs more evenly.  Raises BadInput for a quota
    below a millisecond, LabError for a cgroup that is gone or has no cpu controller.
    """
    given = {}
    if burst is not KEEP and cpus is not KEEP:
        given["cpu.max.burst"] = "0"  # a burst above the new quota would refuse it
    if cpus is not KEEP:
        if cpus is not None and cpus * period < LEAST:
            raise BadInput(
                f"{cpus:g} CPUs in periods of {period:g} s are too little",
                why=f"that is {cpus * period * 1000:g} ms of each period, and the kernel wants at least 1 ms",
                next="more CPUs, or a longer period (up to 1 s)",
            )
        quota = None if cpus is None else round(cpus * period * MICRO)
        given["cpu.max"] = f"{forms.word(quota)} {round(period * MICRO)}"
    if idle is not KEEP:
        given["cpu.idle"] = str(int(idle))
    if weight is not KEEP:
        given["cpu.weight"] = str(weight)
    tree.limit(group, given)
    if burst is not KEEP:
        tree.limit(group, {"cpu.max.burst": str(round(burst * MICRO))})


def limits(group: Path) -> Limits:
    """What is set now. Raises LabError."""
    quota, period = forms.read(group, "cpu.max").split()
    burst = int(forms.read(group, "cpu.max.burst")) if forms.has(group, "cpu.max.burst") else 0
    idle = forms.has(group, "cpu.idle") and forms.read(group, "cpu.idle") == "1"
    allowed = forms.amount(quota)
    return Limits(
        None if allowed is None else allowed / MICRO,
        int(period) / MICRO,
        int(forms.read(group, "cpu.weight")),
        burst / MICRO,
        idle,
    )


def stat(group: Path) -> Stat:
    """What was used and withheld since the cgroup was made; every cgroup has it. Raises LabError."""
    found = forms.flat(forms.read(group, "cpu.stat"))
    return Stat(
        found["usage_usec"] / MICRO,
        found["user_usec"] / MICRO,
        found["system_usec"] / MICRO,
        found.get("nr_periods", 0),
        found.get("nr_throttled", 0),
        found.get("throttled_usec", 0) / MICRO,
        found.get("nr_bursts", 0),
        found.get("burst_usec", 0) / MICRO,
    )
