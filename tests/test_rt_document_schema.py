"""The table of fields against the specification's own JSON schema: what that refuses, this refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rt_schema import problems

from labkit.errors import BadInput, LabError
from labkit.runtime.document import features, fields, read, template
from labkit.runtime.document.fields_seccomp import SECCOMP
from labkit.runtime.document.shapes import Each, Object, Shape

# One of everything, so that every place can be changed.
FULL: dict[str, Any] = {
    **template.spec(),
    "domainname": "lab",
    "annotations": {"a": "b"},
    "hooks": {kind: [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 1}]
              for kind in fields.HOOK_KINDS},
}  # fmt: skip
FULL["process"]["capabilities"]["inheritable"] = ["CAP_CHOWN"]
FULL["process"] |= {
    "consoleSize": {"height": 24, "width": 80},
    "user": {"uid": 1, "gid": 1, "umask": 0o22, "additionalGids": [5], "username": "x"},
    "apparmorProfile": "a",
    "selinuxLabel": "a",
    "oomScoreAdj": 100,
    "scheduler": {"policy": "SCHED_BATCH", "nice": 1, "priority": 0, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
                  "runtime": 0, "deadline": 0, "period": 0},
    "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    "execCPUAffinity": {"initial": "0-1", "final": "1"},
}  # fmt: skip
LINE = [{"containerID": 0, "hostID": 1000, "size": 10}]
FULL["mounts"][0] |= {"options": ["ro"], "uidMappings": LINE, "gidMappings": LINE}
FULL["linux"] |= {
    "namespaces": [*FULL["linux"]["namespaces"], {"type": "user"}, {"type": "time"}],
    "uidMappings": LINE,
    "gidMappings": LINE,
    "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}, "monotonic": {"secs": 1, "nanosecs": 1}},
    "devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 0, "gid": 0}],
    "cgroupsPath": "/x",
    "sysctl": {"net.ipv4.ip_forward": "1"},
    "rootfsPropagation": "slave",
    "mountLabel": "a",
    "personality": {"domain": "LINUX", "flags": []},
    "seccomp": {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/x", "listenerMetadata": "m",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                      "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}],
    },
    "resources": {
        "devices": [{"allow": False, "type": "c", "major": 1, "minor": 1, "access": "rwm"}],
        "memory": {"limit": 1, "reservation": 1, "swap": 1, "kernel": 1, "kernelTCP": 1, "swappiness": 0,
                   "disableOOMKiller": False, "useHierarchy": False, "checkBeforeUpdate": False},
        "cpu": {"shares": 2, "quota": 1, "burst": 1, "period": 1, "realtimeRuntime": 1, "realtimePeriod": 1,
                "cpus": "0", "mems": "0", "idle": 0},
        "pids": {"limit": 1},
        "blockIO": {"weight": 10, "leafWeight": 10,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}],
                    **{f"throttle{way}Device": [{"major": 8, "minor": 0, "rate": 1}]
                       for way in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")}},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
        "rdma": {"mlx5_1": {"hcaHandles": 1, "hcaObjects": 1}},
        "unified": {"memory.high": "max"},
    },
}  # fmt: skip
WEIRD = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.sampled_from([-1, 0, 1, 2**16, 2**31, 2**32, 2**63, 2**64, 513, 0o7777, 0o10000]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
        st.sampled_from(["SCMP_ACT_ALLOW", "c", "LINUX", "private", "RLIMIT_X", "2MB", "0-3", "MB:1", "mount"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*way, key)
        yield from places(inner, (*way, key))


def changed(way: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The full document with another value at one place; ... takes it away."""
    document = copy.deepcopy(FULL)
    here: Any = document
    for step in way[:-1]:
        here = here[step]
    if value is ...:
        del here[way[-1]]
    else:
        here[way[-1]] = value
    return document


def test_one_of_everything_is_accepted_by_both() -> None:
    """The document with every field is right for the schema and for the table."""
    assert problems(FULL, "config") == []
    read.check(FULL)


@given(st.sampled_from(sorted(places(FULL), key=str)), WEIRD | st.just(...))
@settings(max_examples=150, deadline=None)
def test_whatever_the_schema_refuses_is_refused(way: tuple[Any, ...], value: Any) -> None:
    """Another value anywhere: no error but the kit's own, and one wherever the schema has one."""
    document = changed(way, value)
    try:
        read.check(document)
    except LabError:
        return
    left = [one for one in problems(document, "config") if ".fileMode: " not in one]
    assert left == []


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_no_bytes_make_the_reader_fail_otherwise(raw: bytes) -> None:
    """Any bytes are a document or a BadInput."""
    try:
        read.parse(raw)
    except BadInput:
        pass


def named(shape: Shape) -> Iterator[str]:
    """Every field's name that the table has below `shape`."""
    if isinstance(shape, Object):
        for name, inner in shape.fields.items():
            yield name
            yield from named(inner)
    elif isinstance(shape, Each):
        yield from named(shape.item)


def test_the_full_document_has_every_field_of_the_table() -> None:
    """So that no field of the table stays without its oracle."""
    there = {step for way in places(FULL) for step in way if isinstance(step, str)}
    table = {*named(fields.CONFIG), *named(SECCOMP)}
    # commandLine is for Windows, a path for a namespace that is there, and intelRdt is refused whole.
    assert table - there == {"commandLine", "intelRdt", "closID", "l3CacheSchema", "memBwSchema", "enableCMT",
                             "enableMBM"}  # fmt: skip


def test_what_is_written_validates() -> None:
    """`spec` and `features` are right by the specification's schemas."""
    for rootless in (False, True):
        assert problems(json.loads(json.dumps(template.spec(rootless=rootless))), "config") == []
    assert problems(json.loads(json.dumps(features.features(["ro", "rw"], "0.1.0"))), "features") == []
