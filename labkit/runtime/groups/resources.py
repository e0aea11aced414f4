"""Floor 3: linux.resources, the whole of it, as the files of cgroup v2.

Owns: the table from the specification's fields, which were made for version 1, to version 2's files; what
has no file there is refused when it would limit something, and passed over (with a warning by
labkit.runtime.document) when the kernel simply does without.  And which fields mean nothing: most are numbers in
Go's structures, where 0 and "" stand for "not set".

Read: the OCI runtime specification, config-linux.md, "Control groups"; cgroup-v2.rst.
"""

from __future__ import annotations

from labkit.errors import BadInput, Refused
from labkit.lean import TYPE_CHECKING
from labkit.runtime import cgroup_texts

if TYPE_CHECKING:
    from typing import Any

# field below linux.resources: what version 2 has instead.
NOT_IN_VERSION_2 = {
    ("cpu", "realtimeRuntime"): "real-time time has no controller in cgroup v2 yet",
    ("cpu", "realtimePeriod"): "real-time time has no controller in cgroup v2 yet",
    (
        "network",
        "classID",
    ): "net_cls is of version 1; version 2 matches traffic by the cgroup itself (nft, socket cgroupv2)",
    ("network", "priorities"): "net_prio is of version 1",
}

KEPT_PARTS = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "rdma", "unified")
MEANT_AT_ZERO = {("cpu", "idle"), ("cpu", "burst")}  # pointers in runc: there, or not


def mentioned(resources: dict[str, Any]) -> dict[str, Any]:
    """Without what leaves a limit as it is: runc, and whoever writes for it, says 0 and "" for that."""
    found: dict[str, Any] = {}
    for part in KEPT_PARTS:
        value = resources.get(part)
        if isinstance(value, dict) and part not in ("rdma", "unified"):
            value = {name: one for name, one in value.items() if one or (part, name) in MEANT_AT_ZERO}
        if value:
            found[part] = value
    return found


def files(resources: dict[str, Any], *, bfq: bool = False) -> dict[str, str]:
    """{file: text} in the order in which they are written; a line of a text is a write of its own.

    bfq -- the kernel has io.bfq.weight.  Raises BadInput for what contradicts itself, Refused for what only
    version 1 had.
    """
    for (part, field), why in NOT_IN_VERSION_2.items():
        if resources.get(part, {}).get(field):
            raise Refused(f"linux.resources.{part}.{field} cannot be kept", why=why, status=1)
    resources = mentioned(resources)
    memory = resources.get("memory", {})
    if "swap" in memory and memory["swap"] >= 0:
        limit = memory.get("limit", -1)
        if limit < 0 or memory["swap"] < limit:
            raise BadInput("linux.resources.memory.swap must be at least memory.limit", status=1,
                           why="it counts memory and swap together; cgroup v2 counts swap alone")  # fmt: skip
    found = cgroup_texts.files(resources, bfq=bfq)
    cpu, io = resources.get("cpu", {}), resources.get("blockIO", {})
    if "burst" in cpu:
        found["cpu.max.burst"] = str(cpu["burst"])
    if "idle" in cpu:
        found["cpu.idle"] = str(cpu["idle"])
    lines = [_device_weight(one, bfq) for one in io.get("weightDevice", ()) if one.get("weight")]
    if lines:
        name = "io.bfq.weight" if bfq else "io.weight"
        found[name] = "\n".join(filter(None, (found.get(name, ""), *lines)))
    for one in resources.get("hugepageLimits", ()):
        # What is used, and what is promised already (mmap): at use it would be too late to say no but by SIGBUS.
        for what in ("max", "rsvd.max"):
            found[f"hugetlb.{one['pageSize']}.{what}"] = str(one["limit"])
    rdma = [_rdma(name, one) for name, one in resources.get("rdma", {}).items()]
    if rdma:
        found["rdma.max"] = "\n".join(rdma)
    for name, text in resources.get("unified", {}).items():
        if "/" in name or name in ("", ".", "..") or name.startswith("cgroup."):
            raise BadInput(f"linux.resources.unified: {name!r} is no limit's file", status=1,
                           why="the specification wants the name of a file in the container's own cgroup")  # fmt: skip
        found[name] = text
    return found


def _device_weight(one: dict[str, int], bfq: bool) -> str:
    weight = one["weight"] if bfq else cgroup_texts.io_weight(one["weight"])
    return f"{one['major']}:{one['minor']} {weight}"


def _rdma(name: str, one: dict[str, int]) -> str:
    words = [f"{word}={one[field]}" for field, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
             if field in one]  # fmt: skip
    return " ".join([name, *words])


def controllers(texts: dict[str, str]) -> set[str]:
    """The controllers that these files need: no limit needs none."""
    return {name.partition(".")[0] for name, text in texts.items() if text != "max"}
