"""Floor 3: update: other limits for a container that lives.

Owns: what the flags, or a document of resources, come to; which limits they change; and that a second update goes on
from the first.  A field that is not there, or is 0, leaves its limit as it is (runc's rule).

Read: runc-update(8); the OCI runtime specification, config-linux.md, "Control groups".
"""

from __future__ import annotations

import sys

from labkit import leanjson
from labkit.errors import BadInput, Refused
from labkit.lean import TYPE_CHECKING
from labkit.runtime import cgroup_texts
from labkit.runtime.document import fields, read
from labkit.runtime.groups import driver
from labkit.runtime.groups import resources as texts
from labkit.runtime.life import store

if TYPE_CHECKING:
    from typing import Any

    from labkit.runtime.life.words import Given

    Resources = dict[str, Any]

# flag's field: (part of linux.resources, its field, what the word is).
FLAGS = {
    "blkio_weight": ("blockIO", "weight", "number"),
    "cpu_period": ("cpu", "period", "number"),
    "cpu_quota": ("cpu", "quota", "number"),
    "cpu_burst": ("cpu", "burst", "number"),
    "cpu_idle": ("cpu", "idle", "number"),
    "cpu_share": ("cpu", "shares", "number"),
    "cpu_rt_period": ("cpu", "realtimePeriod", "number"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime", "number"),
    "cpuset_cpus": ("cpu", "cpus", "text"),
    "cpuset_mems": ("cpu", "mems", "text"),
    "memory": ("memory", "limit", "bytes"),
    "memory_reservation": ("memory", "reservation", "bytes"),
    "memory_swap": ("memory", "swap", "bytes"),
    "pids_limit": ("pids", "limit", "number"),
}


def asked(given: Given) -> Resources:
    """What the command line wants changed. Raises BadInput, NotFound."""
    if given.resources:
        return document(sys.stdin.buffer.read() if given.resources == "-" else None, given.resources)
    if given.l3_cache_schema or given.mem_bw_schema:
        raise Refused("linux.intelRdt cannot be kept here", why="this runtime does not mount resctrl", status=1)
    found: Resources = {}
    for flag, (part, field, kind) in FLAGS.items():
        if word := getattr(given, flag):
            found.setdefault(part, {})[field] = _value(word, kind, "--" + flag.replace("_", "-"))
    fields.RESOURCES.check(found, "linux.resources")
    return texts.mentioned(found)


def document(raw: bytes | None, name: str) -> Resources:
    """The resources that a document holds: these bytes, or the file of this name. Raises BadInput, NotFound."""
    wanted: Resources = read.resources(raw, name)
    return texts.mentioned(wanted)


def _value(word: str, kind: str, option: str) -> int | str:
    if kind == "text":
        return word
    if kind == "bytes" and word != "-1":
        from labkit.runtime import units

        return units.size(word, option)
    try:
        return int(word)
    except ValueError:
        raise BadInput(f"{option} {word!r} is no number", next=f"{option} 100", status=1) from None


def update(place: store.Store, identifier: str, wanted: Resources) -> None:
    """Write the limits, and remember them. Raises Refused for an ended container, LabError."""
    with place.locked(identifier) as state:
        if state["status"] == "stopped":
            raise Refused(f"cannot update container {identifier}", why="it has ended", status=1)
        config = place.config(identifier)
        before: Resources = config.setdefault("linux", {}).setdefault("resources", {})
        driver.apply(state, completed(before, wanted), rootless=state.get("rootless", False))
        for part, value in wanted.items():
            if isinstance(value, dict):
                before.setdefault(part, {}).update(value)
            else:
                before[part] = value
        limit, swap = (before.get("memory", {}).get(name, -1) for name in ("limit", "swap"))
        if 0 < swap < limit:  # the limit has overtaken it: memory and swap together are at least that
            before["memory"]["swap"] = limit
        store.replace(place.file(identifier, store.CONFIG), leanjson.dumps(config))


def completed(before: Resources, wanted: Resources) -> Resources:
    """The change, with the other half of what stands in one file (cpu.max), or is counted together (swap)."""
    found = {part: dict(value) if isinstance(value, dict) else value for part, value in wanted.items()}
    memory, cpu = found.get("memory", {}), found.get("cpu", {})
    if "swap" in memory and "limit" not in memory and "limit" in before.get("memory", {}):
        memory["limit"] = before["memory"]["limit"]
    if "quota" in cpu or "period" in cpu:
        old = {"quota": -1, "period": cgroup_texts.PERIOD} | before.get("cpu", {})
        for field in ("quota", "period"):
            cpu.setdefault(field, old[field])
    return found
