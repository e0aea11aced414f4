"""Floor 3: from linux.resources of the OCI specification to the files of cgroup v2.

Owns: the conversions, which are those of runc and crun.

Read: cgroup-v2.rst on each file; the OCI runtime specification, config-linux, "Control groups".
"""

from __future__ import annotations

from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PERIOD = 100_000  # microseconds, cpu.max's default period

# Docker's option: its list in linux.resources.blockIO, and the word of io.max.
RATES = {
    "--device-read-bps": ("throttleReadBpsDevice", "rbps"),
    "--device-write-bps": ("throttleWriteBpsDevice", "wbps"),
    "--device-read-iops": ("throttleReadIOPSDevice", "riops"),
    "--device-write-iops": ("throttleWriteIOPSDevice", "wiops"),
}


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1 to 10000) of Docker's shares (2 to 262144): a straight line, as in runc 1.1 and crun 1.21.

    It turns the default, 1024 shares, into a weight of 39 and not 100; later runtimes draw a curve for that.
    """
    return 1 + (min(max(shares, 2), 1 << 18) - 2) * 9999 // 262142


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) of Docker's weight (10 to 1000): a straight line."""
    return 1 + (weight - 10) * 9999 // 990


def files(resources: Mapping[str, Mapping[str, Any]], *, bfq: bool = False) -> dict[str, str]:
    """The cgroup v2 file and text for each limit of linux.resources; a line of the text is a write.

    memory.swap.max counts swap alone, so the OCI number loses the memory in it.  bfq -- the
    kernel has io.bfq.weight, which takes Docker's weight as it is.
    """

    def text(number: int) -> str:
        return "max" if number < 0 else str(number)

    found = {}
    memory_, cpu_, pids_, io_ = (resources.get(name, {}) for name in ("memory", "cpu", "pids", "blockIO"))
    if "limit" in memory_:
        found["memory.max"] = text(memory_["limit"])
    if "swap" in memory_:
        found["memory.swap.max"] = text(memory_["swap"] - memory_["limit"] if memory_["swap"] >= 0 else -1)
    if "reservation" in memory_:
        found["memory.low"] = text(memory_["reservation"])
    if "quota" in cpu_ or "period" in cpu_:
        found["cpu.max"] = f"{text(cpu_.get('quota', -1))} {cpu_.get('period', PERIOD)}"
    if "shares" in cpu_:
        found["cpu.weight"] = str(weight_of_shares(cpu_["shares"]))
    for name in ("cpus", "mems"):
        if name in cpu_:
            found[f"cpuset.{name}"] = cpu_[name]
    if "limit" in pids_:
        found["pids.max"] = text(pids_["limit"])
    if "weight" in io_:
        found["io.bfq.weight" if bfq else "io.weight"] = str(io_["weight"] if bfq else io_weight(io_["weight"]))
    lines = [
        f"{one['major']}:{one['minor']} {word}={one['rate']}"
        for name, word in RATES.values()
        for one in io_.get(name, ())
    ]
    if lines:
        found["io.max"] = "\n".join(lines)
    return found
