"""Reading floor: how many packets went through each network device of a process's network.

Owns: reading /proc/PID/net/dev, which shows the network namespace of that process, and the
difference of two readings.

Read: proc_pid_net(5) on /proc/net/dev.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FIELDS = {"bytes_in": 0, "packets_in": 1, "dropped_in": 3, "bytes_out": 8, "packets_out": 9, "dropped_out": 11}


class Traffic(NamedTuple):
    """What one device has counted since it was made; in and out as the owner of the device sees it."""

    bytes_in: int
    packets_in: int
    dropped_in: int
    bytes_out: int
    packets_out: int
    dropped_out: int

    def __str__(self) -> str:
        return f"{self.packets_in} in, {self.packets_out} out"


def read(pid: int | str = "self") -> dict[str, Traffic]:
    """{device: its counters} of the network namespace of `pid`. Raises OSError when the process has ended."""
    return parse(Path(f"/proc/{pid}/net/dev").read_text())


def parse(text: str) -> dict[str, Traffic]:
    """The text of /proc/net/dev: two lines of headings, then a line for each device."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(":")  # a name may hold colons, as in eth0:1
        numbers = [int(word) for word in rest.split()]
        found[name.strip()] = Traffic(*(numbers[place] for place in FIELDS.values()))
    return found


def between(before: Mapping[str, Traffic], after: Mapping[str, Traffic]) -> dict[str, Traffic]:
    """What the devices of `after` have counted since `before`; a device that is new counts from 0."""
    zero = Traffic(0, 0, 0, 0, 0, 0)
    return {
        name: Traffic(*(new - old for new, old in zip(now, before.get(name, zero), strict=True)))
        for name, now in after.items()
    }
