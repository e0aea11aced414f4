"""Floor 3: the units people write (256m, 1.5, /dev/sda:1mb) into the numbers the kernel takes.

Owns: the meaning of each of Docker's limits, as the OCI specification's linux.resources.
labkit.runtime.cgroup_texts goes on from there to the files of cgroup v2.
labkit.runtime.flags is the table of all of them.

Read: the OCI runtime specification, config-linux, "Control groups";
Docker's documentation of `docker run`, "Runtime options with Memory, CPUs, and GPUs".
"""

from __future__ import annotations

import re

from labkit.errors import BadInput
from labkit.lean import TYPE_CHECKING
from labkit.runtime.cgroup_texts import PERIOD, RATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

SUFFIXES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
LEAST_MEMORY = 6 << 20  # bytes; below this Docker refuses, since nothing starts in so little


def size(text: str, option: str) -> int:
    """Bytes of "256m", "1g", "1.5GiB", "64kb" (units of 1024, as in Docker).

    Raises BadInput with the option's name.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)i?b?", text.strip().lower())
    if not match:
        raise BadInput(
            f"{option} {text!r} is not a size",
            why="a size is a number and one of the units b, k, m, g, t, p",
            next=f"for example {option} 256m",
        )
    return int(float(match[1]) * SUFFIXES[match[2]])


def memory(limit: str | None, swap: str | None, reservation: str | None = None) -> dict[str, int]:
    """The OCI specification's linux.resources.memory of --memory, --memory-swap and --memory-reservation.

    `swap` in both is memory and swap together; -1 is unlimited, 0 as if it were not given;
    Docker allows as much swap as memory when only --memory is given.
    """
    kept = {} if reservation is None else {"reservation": size(reservation, "--memory-reservation")}
    if swap is not None and swap != "-1" and size(swap, "--memory-swap") == 0:
        swap = None
    if limit is None:
        if swap not in (None, "-1"):
            raise BadInput("--memory-swap needs --memory", why="it limits memory and swap together")
        return kept
    total = size(limit, "--memory")
    if total < LEAST_MEMORY:
        raise BadInput(f"--memory {limit} is too little", why="nothing starts in less than 6m", next="--memory 6m")
    if kept and kept["reservation"] > total:
        raise BadInput(
            f"--memory-reservation {reservation} is more than --memory {limit}",
            why="what is kept for a container lies within what it may use",
        )
    if swap is None:
        return {"limit": total, "swap": 2 * total, **kept}
    if swap == "-1":
        return {"limit": total, "swap": -1, **kept}
    both = size(swap, "--memory-swap")
    if both < total:
        raise BadInput(
            f"--memory-swap {swap} is less than --memory {limit}",
            why="it limits memory and swap together",
            next=f"--memory-swap {limit} allows no swap at all",
        )
    return {"limit": total, "swap": both, **kept}


def cpu(cpus: str | None, *, shares: str | None = None, period: str | None = None,
        quota: str | None = None) -> dict[str, int]:  # fmt: skip
    """linux.resources.cpu: --cpus is so many microseconds of CPU time in each period; 0 is as if not given."""
    found: dict[str, int] = {}
    if cpus is not None:
        if period is not None or quota is not None:
            raise BadInput("--cpus says what --cpu-period and --cpu-quota say together", next="one of the two ways")
        try:
            count = float(cpus)
        except ValueError:
            count = -1.0
        if not 0.01 <= count <= 8192:
            raise BadInput(
                f"--cpus {cpus!r} is not a number of CPUs", why="from 0.01 on", next="for example --cpus 1.5"
            )
        found.update(quota=round(count * PERIOD), period=PERIOD)
    if shares is not None and (number := whole(shares, "--cpu-shares", "shares", 0, 1 << 18)):
        found["shares"] = number
    if period is not None and (number := whole(period, "--cpu-period", "microseconds", 0, 1_000_000)):
        found["period"] = _least(number, 1000, "--cpu-period")
    if quota is not None and quota not in ("-1", "0"):
        found["quota"] = _least(whole(quota, "--cpu-quota", "microseconds", 0, 1 << 40), 1000, "--cpu-quota")
        found.setdefault("period", PERIOD)
    return found


def _least(number: int, least: int, option: str) -> int:
    if number < least:
        raise BadInput(f"{option} {number} is too little", why=f"the kernel takes {least} microseconds and more")
    return number


def whole(text: str, option: str, of: str, least: int, most: int) -> int:
    """A whole number between two bounds. Raises BadInput with the option's name."""
    if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
        raise BadInput(f"{option} {text!r} is not a number of {of}", why=f"it goes from {least} to {most}")
    return int(text)


def cpuset(cpus: str | None, mems: str | None) -> dict[str, str]:
    """linux.resources.cpu's cpus and mems of --cpuset-cpus and --cpuset-mems: "0-2,5"."""
    found = {}
    for name, text in (("cpus", cpus), ("mems", mems)):
        if text:
            if not re.fullmatch(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", text):
                raise BadInput(
                    f"--cpuset-{name} {text!r} is no list of numbers", next=f"for example --cpuset-{name} 0-2,5"
                )
            found[name] = text
    return found


def pids(text: str | None) -> dict[str, int]:
    """linux.resources.pids of --pids-limit; -1 and 0 are unlimited, as in Docker."""
    if text is None:
        return {}
    if not re.fullmatch(r"-1|[0-9]+", text):
        raise BadInput(f"--pids-limit {text!r} is not a number of processes", next="for example --pids-limit 4096")
    return {"limit": int(text) or -1}


def block_io(weight: str | None, rates: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """linux.resources.blockIO of --blkio-weight, and of {option: PATH:RATE ...} for the options in RATES."""
    found: dict[str, Any] = {}
    if weight is not None and (number := whole(weight, "--blkio-weight", "a weight", 0, 1000)):
        if number < 10:
            raise BadInput(f"--blkio-weight {weight} is too little", why="it goes from 10 to 1000; 0 is the default")
        found["weight"] = number
    for option, (name, _) in RATES.items():
        if given := rates.get(option):
            found[name] = [_rate(text, option) for text in given]
    return found


def _rate(text: str, option: str) -> dict[str, int]:
    """The device's numbers and its rate of "/dev/sda:1mb" (iops: a plain number). Raises LabError."""
    from labkit.kernel.cgroups import io

    path, _, amount = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise BadInput(f"{option} {text!r} names no device", next=f"for example {option} /dev/sda:1000000")
    rate = size(amount, option) if option.endswith("bps") else whole(amount, option, "operations", 1, 1 << 32)
    if not rate:
        raise BadInput(f"{option} {text!r} lets nothing through", next="a rate above 0")
    major, _, minor = io.device(path).partition(":")
    return {"major": int(major), "minor": int(minor), "rate": rate}
