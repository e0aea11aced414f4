"""Floor 3: the rules for the object `linux` of config.json.

Owns: namespaces and what they must come with (mappings, clocks, names, kernel settings), devices,
the paths that are hidden, and what no kernel that the kit supports can do.

Read: the OCI runtime specification, config-linux.md; user_namespaces(7), "Defining user and
group ID mappings"; time_namespaces(7).
"""

from __future__ import annotations

import fcntl
import os

from labkit.errors import Refused
from labkit.kernel.namespaces import KINDS
from labkit.lean import TYPE_CHECKING
from labkit.runtime.document.shapes import wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Config = dict[str, Any]
    Entries = dict[str, dict[str, Any]]

OCI = {kind.oci: kind for kind in KINDS.values()}
NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h, Linux 4.11
EXTENTS = 340  # lines that a mapping may have, Linux 4.15
NANOSECONDS = 10**9
CLOCKS = {"boottime", "monotonic"}
# A kernel setting: the namespace that it belongs to; every other one belongs to the whole machine.
SYSCTLS = {"net.": "network", "kernel.msg": "ipc", "kernel.shm": "ipc", "kernel.sem": "ipc", "fs.mqueue.": "ipc",
           "kernel.domainname": "uts"}  # fmt: skip


def check(config: Config) -> None:
    """Raise BadInput for the first rule that the object `linux` breaks; Refused for what no kernel here can do."""
    linux = config.get("linux", {})
    entries = namespaces(linux)
    mappings(linux, entries)
    clocks(linux, entries)
    names(config, entries)
    sysctls(linux, entries)
    devices(linux)
    paths(config, entries)
    personality(linux)
    seccomp(linux)
    impossible(linux)


def namespaces(linux: Config) -> Entries:
    """Each kind once; a path is a namespace's own file. Returns {type: entry}."""
    entries: Entries = {}
    for number, entry in enumerate(linux.get("namespaces", ())):
        here = f"linux.namespaces[{number}]"
        if entry["type"] in entries:
            wrong(here, f"is the second of type {entry['type']}", "a process is in one of each kind")
        entries[entry["type"]] = entry
        if path := entry.get("path", ""):
            _is_namespace(path, entry["type"], f"{here}.path")
    return entries


def _is_namespace(path: str, kind: str, place: str) -> None:
    if not path.startswith("/"):
        wrong(place, f"is not absolute: {path!r}", "the specification: the value MUST be an absolute path")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        wrong(place, f"cannot be opened: {path}", f"{error.strerror} (errno {error.errno})",
              "ls /proc/PID/ns lists those of a process; ip netns list the named ones")  # fmt: skip
    try:
        flag = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        wrong(place, f"is no namespace: {path}", "the kernel does not know it as one (ioctl_nsfs(2))")
    finally:
        os.close(fd)
    if flag != OCI[kind].flag:
        actual = next((one.oci for one in KINDS.values() if one.flag == flag), "another")
        wrong(place, f"is a namespace of type {actual}, and not {kind}: {path}")


def mappings(linux: Config, entries: Entries) -> None:
    """Mappings and a new user namespace come together; beside a path they are passed over (`warnings`).

    containerd, CRI-O and `podman --userns=container:` say both, and runc 1.2 takes it.
    """
    for name in ("uidMappings", "gidMappings"):
        given = linux.get(name, ())
        if given and "user" not in entries:
            wrong(f"linux.{name}", "stands without a user namespace", "whose numbers would it map?",
                  'linux.namespaces: {"type": "user"}')  # fmt: skip
        if not given and "user" in entries and not entries["user"].get("path"):
            wrong(f"linux.{name}", "is missing", "in a new user namespace nobody has a number until it says so")
        check_mapping(given, f"linux.{name}")


def check_mapping(mapping: Any, place: str) -> None:
    """The lines of one mapping do not overlap, on neither side. Raises BadInput."""
    if len(mapping) > EXTENTS:
        wrong(place, f"has {len(mapping)} lines", f"the kernel takes {EXTENTS} (user_namespaces(7))")
    for number, line in enumerate(mapping):
        here = f"{place}[{number}]"
        if not line["size"]:
            wrong(f"{here}.size", "is 0", "a line maps at least one number")
        for side in ("containerID", "hostID"):
            end = line[side] + line["size"]
            if end > 2**32 - 1:
                wrong(here, f"goes beyond the last number on the side of {side}", "4294967295 means nobody")
            for other, earlier in enumerate(mapping[:number]):
                if line[side] < earlier[side] + earlier["size"] and earlier[side] < end:
                    wrong(here, f"overlaps {place}[{other}] on the side of {side}",
                          f"{earlier[side]} to {earlier[side] + earlier['size'] - 1} is mapped there")  # fmt: skip


def clocks(linux: Config, entries: Entries) -> None:
    """Offsets need a time namespace that is new: its clocks are set before anybody is in it."""
    offsets = linux.get("timeOffsets", {})
    if offsets and ("time" not in entries or entries["time"].get("path")):
        wrong("linux.timeOffsets", "stands without a new time namespace", "time_namespaces(7): the offsets are its own",
              'linux.namespaces: {"type": "time"}')  # fmt: skip
    for clock in CLOCKS & offsets.keys():
        if offsets[clock].get("nanosecs", 0) >= NANOSECONDS:
            wrong(f"linux.timeOffsets.{clock}.nanosecs", "is a second or more", "whole seconds stand in secs")


def names(config: Config, entries: Entries) -> None:
    """A name of its own needs a UTS namespace, or the machine would get it."""
    for field in ("hostname", "domainname"):
        if config.get(field) and "uts" not in entries:
            wrong(field, "stands without a UTS namespace", "it would be the whole machine's name",
                  'linux.namespaces: {"type": "uts"}')  # fmt: skip
        if len(config.get(field, "").encode()) > 64:
            wrong(field, "is longer than 64 bytes", "uname(2): __NEW_UTS_LEN")


def sysctls(linux: Config, entries: Entries) -> None:
    """Only settings that belong to a namespace that the container has for itself."""
    for name in linux.get("sysctl", {}):
        here = f"linux.sysctl.{name}"
        # As it becomes a path below /proc/sys: net/../kernel/core_pattern would be the machine's.
        path = name if "/" in name.partition(".")[0] else name.replace(".", "/")
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            wrong(here, "is no name of a kernel setting", "such a name has no empty parts and no ..")
        dotted = path.replace("/", ".")
        kind = next((kind for start, kind in SYSCTLS.items() if dotted.startswith(start)), None)
        if kind is None:
            wrong(here, "belongs to the whole machine", "a container may change what its own namespaces have: "
                  "net.*, kernel.msg*, kernel.shm*, kernel.sem, fs.mqueue.*, kernel.domainname")  # fmt: skip
        if kind not in entries:
            wrong(here, f"stands without a {kind} namespace", "it would be the machine's setting",
                  f'linux.namespaces: {{"type": "{kind}"}}')  # fmt: skip
        own = entries[kind].get("path", "")
        if own and _same(own, f"/proc/self/ns/{OCI[kind].file}"):
            wrong(here, f"would be the machine's: the {kind} namespace at {own} is its own")


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def devices(linux: Config) -> None:
    """A device has a path and, but for a pipe, its numbers; each path once."""
    seen = set()
    for number, device in enumerate(linux.get("devices", ())):
        here = f"linux.devices[{number}]"
        if not device["path"].startswith("/"):
            wrong(f"{here}.path", f"is not absolute: {device['path']!r}")
        if ".." in device["path"].split("/"):
            wrong(f"{here}.path", f"leads upward: {device['path']!r}")
        if device["path"] in seen:
            wrong(here, f"is the second at {device['path']}")
        seen.add(device["path"])
        for field in ("major", "minor"):
            if device["type"] != "p" and field not in device:
                wrong(f"{here}.{field}", "is missing", "a device is known by its two numbers (mknod(2))")
            if not 0 <= device.get(field, 0) < 2**32:
                wrong(f"{here}.{field}", f"is {device[field]}", "the numbers of a node are not negative")


def paths(config: Config, entries: Entries) -> None:
    """What is mounted, hidden or frozen is so in a mount namespace of the container's own."""
    linux = config.get("linux", {})
    if config.get("mounts") and "mount" not in entries:
        wrong("mounts", "stand without a mount namespace", "the whole machine would have them",
              'linux.namespaces: {"type": "mount"}')  # fmt: skip
    for field in ("maskedPaths", "readonlyPaths"):
        listed = linux.get(field, ())
        if listed and "mount" not in entries:
            wrong(f"linux.{field}", "stands without a mount namespace", "it would hide the machine's own files")
        for number, path in enumerate(listed):
            if not path.startswith("/"):
                wrong(f"linux.{field}[{number}]", f"is not absolute: {path!r}")


def personality(linux: Config) -> None:
    """A domain, and no flags: the specification lists none yet."""
    wanted = linux.get("personality")
    if wanted is not None and "domain" not in wanted:
        wrong("linux.personality.domain", "is missing", "it says LINUX or LINUX32")
    if wanted and wanted.get("flags"):
        wrong("linux.personality.flags", "is not empty", "the specification has no flags yet")


def seccomp(linux: Config) -> None:
    """The filter's words; what they mean is read by labkit.kernel.seccomp.profile."""
    if "seccomp" not in linux:
        return
    from labkit.kernel.seccomp import profile
    from labkit.runtime.document.fields_seccomp import SECCOMP

    SECCOMP.check(linux["seccomp"], "linux.seccomp")
    profile.parse(linux["seccomp"])


def impossible(linux: Config) -> None:
    """What would need a machine that the kit does not know is refused, and never passed over."""
    if linux.get("intelRdt"):
        raise Refused("config.json: linux.intelRdt cannot be kept here", status=1,
                      why="this runtime knows cache and memory bandwidth only as cgroups have them",
                      next="leave it out, or use a runtime that mounts resctrl")  # fmt: skip


def warnings(config: Config) -> Iterator[str]:
    """What has no effect: on a machine with cgroup v2 alone, or beside something else."""
    linux = config.get("linux", {})
    joined = any(one["type"] == "user" and one.get("path") for one in linux.get("namespaces", ()))
    for field in ("uidMappings", "gidMappings") if joined else ():
        if linux.get(field):
            yield f"linux.{field} stands beside the path of a user namespace, which has its own: passed over"
    memory = linux.get("resources", {}).get("memory", {})
    for field in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller", "useHierarchy"):
        if memory.get(field):
            yield f"linux.resources.memory.{field} has no file in cgroup v2: passed over"
    disks = linux.get("resources", {}).get("blockIO", {})
    for place, one in (("", disks), *((f"weightDevice[{n}].", d) for n, d in enumerate(disks.get("weightDevice", ())))):
        if one.get("leafWeight"):
            yield f"linux.resources.blockIO.{place}leafWeight has no file in cgroup v2: passed over"
