"""Floor 3: events: what a container uses, and that it ran out of memory, a line of JSON each.

Owns: the form of the lines, which is runc's, from the files of cgroup v2; and waiting for the next one: the kernel
tells of an out-of-memory kill (labkit.kernel.cgroups.events), and the clock of the next reading.

Read: runc-events(8); cgroup-v2.rst on each file.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Iterator
from typing import Any

from labkit.errors import BadInput, LabError, Refused
from labkit.kernel.cgroups import counted, forms
from labkit.kernel.cgroups.events import Watch
from labkit.runtime.life.store import Store

MICRO = 1000  # nanoseconds
UNLIMITED = 2**64 - 1  # how runc writes that there is no limit
# io.stat's word: runc's list, and what it calls the operation.
IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def interval(text: str) -> float:
    """Seconds of "5s", "500ms", "1m30s". Raises BadInput."""
    import re

    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not seconds or "".join(number + unit for number, unit in parts) != text:
        raise BadInput(f"--interval {text!r} is no span of time above 0", next="for example 5s or 500ms", status=1)
    return seconds


def stats(group: str) -> dict[str, Any]:
    """What the cgroup's files say, in runc's form. Raises LabError."""
    return {
        "cpu": _cpu(group),
        "cpuset": {},
        "memory": _memory(group),
        "pids": _pids(group),
        "blkio": _io(group),
        "hugetlb": {
            size: {"usage": one.current, "max": one.current, "failcnt": one.refused}
            for size, one in counted.hugetlb(_path(group)).items()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _path(group: str) -> Any:
    from pathlib import Path

    return Path(group)


def _flat(group: str, name: str) -> dict[str, int]:
    return forms.flat(forms.read(group, name)) if forms.has(group, name) else {}


def _amount(group: str, name: str) -> int:
    if not forms.has(group, name):
        return 0
    found = forms.amount(forms.read(group, name))
    return UNLIMITED if found is None else found


def _cpu(group: str) -> dict[str, Any]:
    found = _flat(group, "cpu.stat")
    return {
        "usage": {
            "total": found.get("usage_usec", 0) * MICRO,
            "kernel": found.get("system_usec", 0) * MICRO,
            "user": found.get("user_usec", 0) * MICRO,
        },
        "throttling": {
            "periods": found.get("nr_periods", 0),
            "throttledPeriods": found.get("nr_throttled", 0),
            "throttledTime": found.get("throttled_usec", 0) * MICRO,
        },
    }


def _memory(group: str) -> dict[str, Any]:
    raw = _flat(group, "memory.stat")
    now, swap = _amount(group, "memory.current"), _amount(group, "memory.swap.current")
    most, swap_most = _amount(group, "memory.max"), _amount(group, "memory.swap.max")
    both = UNLIMITED if UNLIMITED in (most, swap_most) else most + swap_most
    return {
        "cache": raw.get("file", 0),
        "usage": {"limit": most, "usage": now, "max": _amount(group, "memory.peak"), "failcnt": 0},
        "swap": {"limit": both, "usage": now + swap, "failcnt": 0},
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": raw,
    }


def _pids(group: str) -> dict[str, int]:
    limit = _amount(group, "pids.max")
    found = {"current": _amount(group, "pids.current")}
    return found if limit == UNLIMITED else found | {"limit": limit}


def _io(group: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    text = forms.read(group, "io.stat") if forms.has(group, "io.stat") else ""
    for device, values in forms.nested(text).items():
        major, _, minor = device.partition(":")
        for word, (listed, operation) in IO.items():
            if word in values:
                entry = {"major": int(major), "minor": int(minor), "op": operation, "value": int(values[word])}
                found.setdefault(listed, []).append(entry)
    return found


def lines(place: Store, identifier: str, seconds: float, *, once: bool) -> Iterator[str]:
    """The lines, until the container has ended; one with `once`. Raises Refused for an ended one, LabError."""
    state = place.load(identifier)
    if state["status"] == "stopped":
        raise Refused(f"container {identifier} is not running", why="it has ended, and its cgroup with it", status=1)
    group = state["cgroup"]
    if not group:
        raise Refused(f"container {identifier} has no cgroup", why="only a cgroup counts what its processes use",
                      next="a user with a cgroup of one's own (systemd-run --user --scope -p Delegate=yes)",
                      status=1)  # fmt: skip
    yield _line("stats", identifier, stats(group))
    if once:
        return
    with _Ooms(group) as ooms:
        due = time.monotonic() + seconds
        while place.load(identifier)["status"] != "stopped":
            if ooms.came(max(0.0, min(due - time.monotonic(), 1.0))):
                yield _line("oom", identifier)
            if time.monotonic() >= due:
                due += seconds
                try:
                    found = stats(group)
                except LabError:  # it ended meanwhile
                    return
                yield _line("stats", identifier, found)


def _line(kind: str, identifier: str, data: dict[str, Any] | None = None) -> str:
    return json.dumps({"type": kind, "id": identifier} | ({} if data is None else {"data": data}))


class _Ooms:
    """Waits for kills for want of memory; where the machine counts no memory, only for the time to pass."""

    def __init__(self, group: str) -> None:
        self.watch = Watch(group, "memory.events") if os.path.exists(f"{group}/memory.events") else None
        self.count = self.watch.now().get("oom_kill", 0) if self.watch else 0

    def __enter__(self) -> _Ooms:
        return self

    def __exit__(self, *_: object) -> None:
        if self.watch:
            self.watch.close()

    def came(self, seconds: float) -> bool:
        """Whether one came within so many seconds."""
        if self.watch is None:
            select.select([], [], [], seconds)
            return False
        try:
            found = self.watch.wait(seconds)
        except LabError:  # the cgroup goes: the container has ended
            return False
        before, self.count = self.count, found.get("oom_kill", 0) if found else self.count
        return self.count > before
