"""config.json is read and understood before anything is made: bad ones are refused with the place of what is wrong."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import BadInput, NotFound, Refused
from labkit.runtime.document import features, read, template

NEW = {"type": "user"}
ONE = [{"containerID": 0, "hostID": 1000, "size": 10}]
# What our template has and runc 1.1's has not: a cgroup namespace (runc: only where cgroup v2 stands alone).
OURS = {"ociVersion", "hostname"}


def put(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy of the document with `value` at a place such as process.rlimits; ... is: taken away."""
    changed = copy.deepcopy(config)
    *way, last = place.split(".")
    here = changed
    for step in way:
        here = here.setdefault(step, {})
    if value is ...:
        here.pop(last)
    else:
        here[last] = value
    return changed


def more(kind: str, path: str = "") -> list[dict[str, str]]:
    """The template's namespaces and one more."""
    entry = {"type": kind, "path": path} if path else {"type": kind}
    return [*template.spec()["linux"]["namespaces"], entry]


def test_the_template_is_accepted_without_a_warning() -> None:
    """What `spec` writes is right, with and without root."""
    for rootless in (False, True):
        config = template.spec(rootless=rootless)
        assert read.parse(json.dumps(config).encode()) == config
        assert read.warnings(config) == []


@pytest.mark.parametrize("rootless", [False, True])
def test_the_template_is_runcs(tmp_path: Path, rootless: bool) -> None:
    """`spec` writes what `runc spec` writes, but for the version, the host's name and a cgroup namespace."""
    subprocess.run(["runc", "spec", *(["--rootless"] if rootless else [])], cwd=tmp_path, check=True)
    theirs, ours = json.loads((tmp_path / "config.json").read_text()), template.spec(rootless=rootless)
    assert {key for key in ours if ours[key] != theirs.get(key)} == OURS | {"linux"}
    of_cgroup = {"type": "cgroup"}
    kinds = {"namespaces": [one for one in ours["linux"]["namespaces"] if one != of_cgroup]}
    theirs["linux"]["namespaces"] = [one for one in theirs["linux"]["namespaces"] if one != of_cgroup]
    assert {**ours["linux"], **kinds} == theirs["linux"]


def test_null_counts_as_not_there() -> None:
    """A field that is null is no field, as for the runtimes written in Go."""
    config = template.spec()
    raw = json.dumps({**config, "hooks": None, "linux": {**config["linux"], "devices": None, "seccomp": None}})
    assert read.parse(raw.encode()) == config


def test_an_unknown_field_is_passed_over() -> None:
    """The specification: an unknown property is no error."""
    read.check({**template.spec(), "zos": {}, "x-mine": 1})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is not JSON: line 1, column 1"),
        (b"{]", "is not JSON: line 1, column 2"),
        (b'{"ociVersion": "1.2.1",\n "root": }', "line 2, column 10"),
        (b"\xff\xfe{", "is not JSON"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "the document must be an object"),
        (b'"1.2.1"', "the document must be an object"),
        (b"{}", "ociVersion is missing"),
    ],
)
def test_what_is_no_document_is_refused(raw: bytes, words: str) -> None:
    """JSON's errors say where, in words."""
    with pytest.raises(BadInput) as seen:
        read.parse(raw)
    assert words in str(seen.value)


def test_a_bundle_that_is_not_there_is_told_from_one_without_a_document(tmp_path: Path) -> None:
    """Each says which of the two is missing."""
    with pytest.raises(NotFound, match=r"there is no .*nowhere"):
        read.load(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"config\.json"):
        read.load(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(BadInput, match="cannot read"):
        read.load(tmp_path)


LINUX_FILE = "/proc/self/status"
WRONG: list[tuple[str, Any, str]] = [
    ("ociVersion", ..., "ociVersion is missing"),
    ("ociVersion", 1, "ociVersion must be a text"),
    ("ociVersion", "one", "ociVersion is no version"),
    ("ociVersion", "2.0.0", "this runtime speaks 1.x"),
    ("root", ..., "root is missing"),
    ("root.path", ..., "root.path is missing"),
    ("root.path", "", "root.path is empty"),
    ("root.readonly", 1, "root.readonly must be true or false"),
    ("process.cwd", ..., "process.cwd is missing"),
    ("process.cwd", "srv", "process.cwd is not absolute"),
    ("process.args", ..., "process.args is empty"),
    ("process.args", [], "process.args is empty"),
    ("process.args", "sh", "process.args must be a list"),
    ("process.args", ["sh", 1], "process.args[1] must be a text"),
    ("process.args", ["s\0h"], "process.args[0] holds a NUL"),
    ("process.env", ["A=\0"], "process.env[0] holds a NUL"),
    ("process.user.uid", -1, "process.user.uid must be a whole number from 0"),
    ("process.user.uid", True, "process.user.uid must be a whole number"),
    ("process.user.uid", 1.0, "process.user.uid must be a whole number"),
    ("process.user.additionalGids", [2**32], "process.user.additionalGids[0]"),
    ("process.oomScoreAdj", 1001, "process.oomScoreAdj"),
    ("process.rlimits", [{"type": "NOFILE", "soft": 1, "hard": 1}], "process.rlimits[0].type"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "soft limit of 2 above the hard one of 1"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, "rlimits[1] is the second RLIMIT_CPU"),
    ("process.scheduler", {"policy": "SCHED_BEST"}, "process.scheduler.policy must be one of"),
    ("process.ioPriority", {}, "process.ioPriority.class is missing"),
    ("process.execCPUAffinity", {"initial": "0x3"}, "process.execCPUAffinity.initial"),
    ("process.consoleSize", {"height": 1}, "process.consoleSize.width is missing"),
    ("process.consoleSize", {"height": 70000, "width": 1}, "consoleSize.height is above 65535"),
    ("mounts", [{"type": "tmpfs"}], "mounts[0].destination is missing"),
    ("mounts", [{"destination": ""}], "mounts[0].destination is empty"),
    ("mounts", [{"destination": "/a", "options": ["idmap"]}], "mounts[0].options has idmap"),
    ("mounts", [{"destination": "/a", "uidMappings": ONE}], "mounts[0].uidMappings stands alone"),
    ("hooks", {"prestart": [{}]}, "hooks.prestart[0].path is missing"),
    ("hooks", {"prestart": [{"path": "true"}]}, "hooks.prestart[0].path is not absolute"),
    ("hooks", {"poststop": [{"path": "/bin/true", "timeout": 0}]}, "hooks.poststop[0].timeout"),
    ("annotations", {"": "x"}, "annotations has one without a name"),
    ("annotations", {"a": 1}, "annotations.a must be a text"),
    ("hostname", "x" * 65, "hostname is longer than 64 bytes"),
    ("linux.namespaces", [{"type": "mounts"}], "linux.namespaces[0].type must be one of"),
    ("linux.namespaces", [{"type": "uts"}], "mounts stand without a mount namespace"),
    ("linux.namespaces", more("pid"), "linux.namespaces[6] is the second of type pid"),
    ("linux.namespaces", [{"type": "mount"}], "hostname stands without a UTS namespace"),
    ("linux.namespaces", more("time", "time"), "linux.namespaces[6].path is not absolute"),
    ("linux.namespaces", more("time", "/no/such"), "cannot be opened: /no/such"),
    ("linux.namespaces", more("time", LINUX_FILE), "is no namespace: /proc/self/status"),
    ("linux.namespaces", more("time", "/proc/self/ns/net"), "of type network, and not time"),
    ("linux.namespaces", more("user"), "linux.uidMappings is missing"),
    ("linux.uidMappings", ONE, "linux.uidMappings stands without a user namespace"),
    ("linux.timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets stands without a new time namespace"),
    ("linux.sysctl", {"vm.swappiness": "1"}, "linux.sysctl.vm.swappiness belongs to the whole machine"),
    ("linux.sysctl", {"net.ipv4.ip_forward": 1}, "linux.sysctl.net.ipv4.ip_forward must be a text"),
    ("linux.devices", [{"path": "/dev/x", "type": "c"}], "linux.devices[0].major is missing"),
    ("linux.devices", [{"path": "x", "type": "p"}], "linux.devices[0].path is not absolute"),
    ("linux.devices", [{"path": "/x", "type": "p"}] * 2, "linux.devices[1] is the second at /x"),
    ("linux.devices", [{"path": "/x", "type": "d"}], "linux.devices[0].type must be one of c, b, u, p"),
    ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0] is not absolute"),
    ("linux.rootfsPropagation", "slaves", "linux.rootfsPropagation must be one of"),
    ("linux.personality", {}, "linux.personality.domain is missing"),
    ("linux.personality", {"domain": "LINUX", "flags": ["X"]}, "linux.personality.flags is not empty"),
    ("linux.resources.pids", {}, "linux.resources.pids.limit is missing"),
    ("linux.resources.cpu", {"quota": 2**63}, "linux.resources.cpu.quota must be a whole number from"),
    ("linux.resources.hugepageLimits", [{"pageSize": "2mb", "limit": 1}], "pageSize must be a size such as 2MB"),
    ("linux.seccomp", {}, "linux.seccomp.defaultAction is missing"),
    ("linux.seccomp", {"defaultAction": "ALLOW"}, "linux.seccomp.defaultAction must be one of"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]},
     "linux.seccomp.syscalls[0].names must be a list of at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "words"), WRONG)
def test_what_is_wrong_is_named_with_its_place(place: str, value: Any, words: str) -> None:
    """Each wrong field is refused, and the message begins with where it stands."""
    with pytest.raises(BadInput) as seen:
        read.check(put(template.spec(), place, value))
    assert words in str(seen.value)
    assert seen.value.status == 1


def user(uids: list[dict[str, int]], gids: Any = ONE) -> dict[str, Any]:
    """A document with these mappings."""
    config = put(template.spec(), "linux.namespaces", more("user"))
    return put(put(config, "linux.uidMappings", uids), "linux.gidMappings", gids)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([(0, 1000, 0)], "linux.uidMappings[0].size is 0"),
        ([(0, 1000, 10), (9, 5000, 1)], "overlaps linux.uidMappings[0] on the side of containerID"),
        ([(0, 1000, 10), (10, 1009, 1)], "overlaps linux.uidMappings[0] on the side of hostID"),
        ([(0, 2**32 - 2, 2)], "goes beyond the last number on the side of hostID"),
        ([(number, number, 1) for number in range(341)], "has 341 lines"),
    ],
)
def test_mappings_that_the_kernel_refuses_are_refused(lines: list[tuple[int, int, int]], words: str) -> None:
    """Lines that overlap, are empty, too many or too long are named."""
    with pytest.raises(BadInput) as seen:
        read.check(user([{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in lines]))
    assert words in str(seen.value)


def test_as_many_lines_as_the_kernel_takes_are_right() -> None:
    """340 lines side by side are a mapping, on both sides of their edges."""
    read.check(user([{"containerID": 2 * n, "hostID": 2 * n, "size": 2} for n in range(340)]))


def test_a_path_takes_the_place_of_mappings() -> None:
    """A user namespace with a path has its mapping already: one beside it is passed over with a warning."""
    config = put(template.spec(), "linux.namespaces", more("user", "/proc/self/ns/user"))
    read.check(config)
    config = put(put(config, "linux.uidMappings", ONE), "linux.gidMappings", ONE)
    read.check(config)
    said = read.warnings(config)
    assert [one.split()[0] for one in said] == ["linux.uidMappings", "linux.gidMappings"]
    assert all(one.endswith("passed over") for one in said)


@pytest.mark.parametrize("name", ["net.ipv4.ip_forward", "kernel.msgmax", "kernel.shm_rmid_forced", "kernel.sem",
                                  "fs.mqueue.msg_max", "kernel.domainname", "net/ipv4/ip_forward"])  # fmt: skip
def test_a_setting_needs_the_namespace_that_it_belongs_to(name: str) -> None:
    """With its namespace a setting is right; without it, or with the machine's own, it is refused."""
    read.check(put(template.spec(), "linux.sysctl", {name: "1"}))
    bare = put(put(template.spec(), "linux.namespaces", [{"type": "mount"}]), "hostname", ...)
    with pytest.raises(BadInput, match="stands without a"):
        read.check(put(bare, "linux.sysctl", {name: "1"}))


def test_the_machines_own_network_by_its_path_is_seen_through() -> None:
    """net.* with the path of the namespace that this process is in would change the machine."""
    spaces = [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": f"/proc/{os.getpid()}/ns/net"}]
    config = put(template.spec(), "linux.namespaces", spaces)
    read.check(config)
    with pytest.raises(BadInput, match="would be the machine's"):
        read.check(put(config, "linux.sysctl", {"net.ipv4.ip_forward": "1"}))


def test_what_no_machine_of_the_kit_can_do_is_refused() -> None:
    """intelRdt is refused in words, and not passed over."""
    with pytest.raises(Refused, match="intelRdt"):
        read.check(put(template.spec(), "linux.intelRdt", {"closID": "a"}))


def test_what_is_passed_over_is_said() -> None:
    """Unknown capabilities, relative destinations and settings of cgroup v1 are warned of."""
    config = put(template.spec(), "process.capabilities.bounding", ["CAP_CHOWN", "CAP_FLY"])
    config = put(config, "linux.resources.memory", {"swappiness": 1, "limit": 1 << 20})
    weights = {"major": 8, "minor": 0, "weight": 10}
    disks = {"weight": 10, "leafWeight": 10, "weightDevice": [weights, {**weights, "leafWeight": 9}]}
    config = put(config, "linux.resources.blockIO", disks)
    config["mounts"].append({"destination": "data", "type": "tmpfs"})
    read.check(config)
    said = read.warnings(config)
    assert len(said) == 5
    for words in ("CAP_FLY", "'data' is not absolute", "memory.swappiness", "blockIO.leafWeight", "[1].leafWeight"):
        assert any(words in one for one in said)


def test_features_are_runcs_and_more() -> None:
    """Every namespace, hook, action, operator and flag that runc 1.1 names is kept here too."""
    theirs = json.loads(subprocess.run(["runc", "features"], capture_output=True, check=True).stdout)
    ours = features.features(["ro"], "0.1.0")
    assert set(theirs["hooks"]) == set(ours["hooks"])
    for part in ("namespaces", "capabilities"):
        assert set(theirs["linux"][part]) <= set(ours["linux"][part])
    for part in ("actions", "operators"):
        assert set(theirs["linux"]["seccomp"][part]) <= set(ours["linux"]["seccomp"][part])
