"""Floor 3: Docker's flags for limits, each on its way to a file of the kernel, in one table.

Owns: the table: what the flag is called, where the OCI document keeps it, which file of
cgroup v2 it ends in, and what happens to the number on the way.  The parser of `labkit run`,
the error for a missing controller and the notebook are made from it; tests hold it against runc.

Read: docker-run(1); the OCI runtime specification, config-linux, "Control groups".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from labkit.errors import Refused
from labkit.runtime import cgroup_texts, units

Given = Mapping[str, Any]  # option without its dashes, _ for -: text, or a list of texts


class Flag(NamedTuple):
    """One flag."""

    option: str
    metavar: str
    place: str  # below linux.resources
    file: str
    conversion: str  # what becomes of the value

    @property
    def name(self) -> str:
        """As argparse and Given call it."""
        return self.option.removeprefix("--").replace("-", "_")

    @property
    def repeated(self) -> bool:
        """Given once a device."""
        return self.option in cgroup_texts.RATES

    @property
    def controller(self) -> str:
        """Who limits."""
        return self.file.partition(".")[0]

    @property
    def help(self) -> str:
        """One line for --help."""
        return f"{self.file}: {self.conversion}"


FLAGS = (
    Flag("--memory", "SIZE", "memory.limit", "memory.max", "bytes, such as 256m"),
    Flag("--memory-swap", "SIZE", "memory.swap", "memory.swap.max", "memory and swap together; loses --memory"),
    Flag("--memory-reservation", "SIZE", "memory.reservation", "memory.low", "bytes, kept when memory is scarce"),
    Flag("--cpus", "N", "cpu.quota, cpu.period", "cpu.max", "N x 100000 microseconds in each 100000"),
    Flag("--cpu-quota", "MICROS", "cpu.quota", "cpu.max", "its first number"),
    Flag("--cpu-period", "MICROS", "cpu.period", "cpu.max", "its second number"),
    Flag("--cpu-shares", "N", "cpu.shares", "cpu.weight", "1 + (N - 2) x 9999 / 262142: 1024 becomes 39"),
    Flag("--cpuset-cpus", "LIST", "cpu.cpus", "cpuset.cpus", "as it is, such as 0-2,5"),
    Flag("--cpuset-mems", "LIST", "cpu.mems", "cpuset.mems", "as it is"),
    Flag("--pids-limit", "N", "pids.limit", "pids.max", "as it is; -1 and 0 are max"),
    Flag("--blkio-weight", "N", "blockIO.weight", "io.bfq.weight",
         "as it is; without bfq io.weight, 1 + (N - 10) x 9999 / 990"),
    Flag("--device-read-bps", "PATH:RATE", "blockIO.throttleReadBpsDevice", "io.max", "rbps= of the device's numbers"),
    Flag("--device-write-bps", "PATH:RATE", "blockIO.throttleWriteBpsDevice", "io.max", "wbps="),
    Flag("--device-read-iops", "PATH:RATE", "blockIO.throttleReadIOPSDevice", "io.max", "riops="),
    Flag("--device-write-iops", "PATH:RATE", "blockIO.throttleWriteIOPSDevice", "io.max", "wiops="),
)  # fmt: skip

# What Docker had for version 1, and version 2 cannot do: option: (why, what to do instead).
REFUSED = {
    "--oom-kill-disable": (
        "cgroup v2 always kills when nothing can be reclaimed; docker drops the option with a warning",
        "a higher --memory; in Python, memory.limit(group, high=...) slows down instead of killing",
    ),
    "--memory-swappiness": ("cgroup v2 has no swappiness of a cgroup's own", "--memory-swap bounds its swap"),
    "--kernel-memory": ("cgroup v2 counts the kernel's memory within memory.max", "--memory"),
}


def refuse(option: str) -> None:
    """Raise Refused for one of REFUSED."""
    why, next_ = REFUSED[option]
    raise Refused(f"there is no {option} on cgroup v2", why=why, next=next_)


def resources(given: Given) -> dict[str, Any]:
    """linux.resources of the flags, without what nobody asked for. Raises BadInput."""

    def text(option: str) -> str | None:
        found = given.get(option)
        return None if found is None else str(found)

    rates = {flag.option: given.get(flag.name) or () for flag in FLAGS if flag.repeated}
    found = {
        "memory": units.memory(text("memory"), text("memory_swap"), text("memory_reservation")),
        "cpu": {
            **units.cpu(text("cpus"), shares=text("cpu_shares"), period=text("cpu_period"), quota=text("cpu_quota")),
            **units.cpuset(text("cpuset_cpus"), text("cpuset_mems")),
        },
        "pids": units.pids(text("pids_limit")),
        "blockIO": units.block_io(text("blkio_weight"), rates),
    }
    return {name: value for name, value in found.items() if value}


def purposes(wanted: Mapping[str, Any]) -> dict[str, str]:
    """{controller: a flag that asked for it} of linux.resources, for an error's text."""
    found: dict[str, str] = {}
    for flag in FLAGS:
        part, _, name = flag.place.partition(", ")[0].partition(".")
        if name in wanted.get(part, {}):
            found.setdefault(flag.controller, flag.option)
    return found


def table() -> list[tuple[str, str, str, str]]:
    """Flag, OCI document, kernel file, conversion: rows for people, the head first."""
    rows = [("docker run", "linux.resources", "cgroup v2", "on the way")]
    return rows + [(flag.option, flag.place, flag.file, flag.conversion) for flag in FLAGS]
