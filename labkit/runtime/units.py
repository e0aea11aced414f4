"""Floor 3: the units people write (256m, 1.5) into the numbers the kernel takes.

Owns: the meaning of --memory, --memory-swap, --cpus and --pids-limit, as Docker has it,
and the cgroup v2 files they end in.

Read: cgroup-v2.rst on memory.max, memory.swap.max, cpu.max and pids.max; Docker's
documentation of `docker run`, "Runtime options with Memory, CPUs, and GPUs".
"""

from __future__ import annotations

import re

from labkit.errors import BadInput

SUFFIXES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
PERIOD = 100_000  # microseconds, cpu.max's default period
LEAST_MEMORY = 6 << 20  # bytes; below this Docker refuses, since nothing starts in so little


def size(text: str, option: str) -> int:
    """Bytes of "256m", "1g", "1.5GiB", "64kb" (units of 1024, as in Docker).

    Raises BadInput with the option's name.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([bkmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise BadInput(
            f"{option} {text!r} is not a size",
            why="a size is a number and one of the units b, k, m, g, t",
            next=f"for example {option} 256m",
        )
    return int(float(match[1]) * SUFFIXES[match[2]])


def memory(limit: str | None, swap: str | None) -> dict[str, int]:
    """The OCI specification's linux.resources.memory of --memory and --memory-swap.

    `swap` in both is memory and swap together; -1 is unlimited; Docker allows as much
    swap as memory when only --memory is given.
    """
    if limit is None:
        if swap is not None:
            raise BadInput("--memory-swap needs --memory", why="it limits memory and swap together")
        return {}
    total = size(limit, "--memory")
    if total < LEAST_MEMORY:
        raise BadInput(f"--memory {limit} is too little", why="nothing starts in less than 6m", next="--memory 6m")
    if swap is None:
        return {"limit": total, "swap": 2 * total}
    if swap == "-1":
        return {"limit": total, "swap": -1}
    both = size(swap, "--memory-swap")
    if both < total:
        raise BadInput(
            f"--memory-swap {swap} is less than --memory {limit}",
            why="it limits memory and swap together",
            next=f"--memory-swap {limit} allows no swap at all",
        )
    return {"limit": total, "swap": both}


def cpu(text: str | None) -> dict[str, int]:
    """linux.resources.cpu of --cpus: so many microseconds of CPU time in each period."""
    if text is None:
        return {}
    try:
        count = float(text)
    except ValueError:
        count = -1.0
    if not 0.01 <= count <= 8192:
        raise BadInput(f"--cpus {text!r} is not a number of CPUs", why="from 0.01 on", next="for example --cpus 1.5")
    return {"quota": round(count * PERIOD), "period": PERIOD}


def pids(text: str | None) -> dict[str, int]:
    """linux.resources.pids of --pids-limit; -1 and 0 are unlimited, as in Docker."""
    if text is None:
        return {}
    if not re.fullmatch(r"-1|\d+", text):
        raise BadInput(f"--pids-limit {text!r} is not a number of processes", next="for example --pids-limit 4096")
    return {"limit": int(text) or -1}


def cgroup_files(resources: dict[str, dict[str, int]]) -> dict[str, str]:
    """The cgroup v2 file and text for each limit of linux.resources.

    memory.swap.max counts swap alone, so the OCI number loses the memory in it.
    """

    def text(number: int) -> str:
        return "max" if number < 0 else str(number)

    files = {}
    memory_, cpu_, pids_ = (resources.get(name, {}) for name in ("memory", "cpu", "pids"))
    if "limit" in memory_:
        files["memory.max"] = text(memory_["limit"])
    if "swap" in memory_:
        files["memory.swap.max"] = text(memory_["swap"] - memory_["limit"] if memory_["swap"] >= 0 else -1)
    if "quota" in cpu_:
        files["cpu.max"] = f"{text(cpu_['quota'])} {cpu_['period']}"
    if "limit" in pids_:
        files["pids.max"] = text(pids_["limit"])
    return files
