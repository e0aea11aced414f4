"""Reading floor: what a container uses: samples of its counters, and what lies between two of them.

Owns: which counters a sample holds, the difference of two, and following one container over time.
It is what `docker stats` shows, from the same files: CPU time of cpu.stat, memory without the page
cache that could go at once, the bytes of its network devices, of io.stat, and pids.current.

    follow = usage.Follow(box.pid)
    with live.watch(lambda: meters.picture("web", follow.look())): ...

Read: Documentation/admin-guide/cgroup-v2.rst; proc_pid_net(5); docker-stats(1).
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from labkit.kernel.cgroups import cpu, forms, io, memory, pids
from labkit.observe import container


class Sample(NamedTuple):
    """Counters at one moment; bytes, and seconds since some beginning."""

    at: float  # CLOCK_MONOTONIC
    cpu: float  # seconds of CPU time so far
    memory: int  # now, without inactive page cache
    limit: int  # of memory: the cgroup's, or all that the machine has
    received: int
    sent: int
    read: int
    written: int
    pids: int  # processes and threads


class Usage(NamedTuple):
    """What lies between two samples: shares, rates a second; and where the second one stands."""

    seconds: float
    cpu: float  # CPUs used: 0.5 is half of one
    memory_share: float  # of the limit
    received: float  # bytes a second
    sent: float
    read: float
    written: float
    now: Sample


def take(group: Path, pid: int) -> Sample:
    """A sample of a cgroup, and of the network namespace of the process `pid` in it.

    A controller that is not handed down counts as 0.  Raises NotFound when the cgroup is gone,
    FileNotFoundError or ProcessLookupError when the process is.
    """
    used = cpu.stat(group).usage
    counted = forms.has(group, "memory.current")
    most = memory.limits(group).max if counted else None
    moved = io.total(group) if forms.has(group, "io.stat") else io.Stat()
    received, sent = network(Path(f"/proc/{pid}/net/dev").read_text())
    return Sample(
        time.monotonic(),
        used,
        memory.working_set(group) if counted else 0,
        min(most or machine_memory(), machine_memory()),
        received,
        sent,
        moved.read,
        moved.written,
        pids.use(group).current if forms.has(group, "pids.current") else 0,
    )


def between(before: Sample, after: Sample) -> Usage:
    """The difference of two samples; of one with itself, nothing moved."""
    seconds = after.at - before.at

    def rate(name: str) -> float:
        moved = float(getattr(after, name) - getattr(before, name))
        return max(0.0, moved) / seconds if seconds > 0 else 0.0

    share = after.memory / after.limit if after.limit else 0.0
    return Usage(seconds, rate("cpu"), share, rate("received"), rate("sent"), rate("read"), rate("written"), after)


def network(text: str) -> tuple[int, int]:
    """Bytes received and sent by all devices but lo, in the text of /proc/PID/net/dev."""
    rows = (line.partition(":") for line in text.splitlines()[2:])
    numbers = [values.split() for name, _, values in rows if name.strip() != "lo"]
    return sum(int(row[0]) for row in numbers), sum(int(row[8]) for row in numbers)


def machine_memory() -> int:
    """All of the machine's memory in bytes (MemTotal)."""
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) << 10


class Follow:
    """The last samples of one container; each `look` adds one. Raises what `take` raises."""

    def __init__(self, pid: int, group: Path | None = None, *, keep: int = 60) -> None:
        self.pid = pid
        self.group = group or container.cgroup(pid)
        self.samples: deque[Sample] = deque(maxlen=keep)
        self.look()

    def look(self) -> list[Sample]:
        """Take one more; all that are kept, oldest first."""
        self.samples.append(take(self.group, self.pid))
        return list(self.samples)
