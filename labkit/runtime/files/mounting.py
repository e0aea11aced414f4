"""Floor 3: one entry of config.json's `mounts`, mounted in the container's root.

Owns: the order of one mount: what is shown, where, with which flags; and the rules about /proc and
/sys, which must be real, and nothing but what stands in a short list may lie over a part of /proc
(CVE-2019-16884, CVE-2019-19921, CVE-2023-27561).

The target is a descriptor that was found beneath the root; mount(2) gets its name in /proc/self/fd.

Read: the OCI runtime specification, config.md, "Mounts"; mount(2), open_tree(2), move_mount(2).
"""

from __future__ import annotations

import errno
import os
import stat

from labkit.errors import LabError, Refused
from labkit.kernel import attempts, mounts
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, StrPath
from labkit.runtime.files import beneath, options
from labkit.runtime.files.options import Parsed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

REAL = {"proc": C.PROC_SUPER_MAGIC, "sysfs": C.SYSFS_MAGIC}
# What engines and LXCFS show in place of parts of /proc: numbers that fit the container.
EMULATED = {
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
                 "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled")
}  # fmt: skip
UNLABELLED = {"proc", "sysfs", "cgroup", "cgroup2", "mqueue"}


def place(
    entry: dict[str, Any], root: int, bundle: StrPath, config: Mapping[str, Any], tree: int | None = None
) -> None:
    """Mount one entry beneath the root, whose descriptor is `root`.

    tree -- what the maker has prepared for it (labkit.runtime.files.prepare).  Raises LabError.
    """
    where, kind = entry["destination"], entry.get("type", "")
    parsed = options.parse(entry.get("options", ()), kind)
    try:
        if tree is not None or parsed.bind:
            _bind(entry, parsed, root, bundle, tree)
        elif kind in ("cgroup", "cgroup2"):
            _cgroup(entry, parsed, root, config)
        elif kind == "tmpfs" and parsed.copy_up:
            _copied_up(entry, parsed, root)
        else:
            data = _data(parsed, kind, config)
            _mount(entry, parsed, root, _as_below(root, where, data) if kind == "tmpfs" else data)
        _afterwards(parsed, root, where)
    except LabError as error:
        raise type(error)(f"cannot mount {where} in the container: {error.what}", why=error.why, next=error.next,
                          status=1) from error  # fmt: skip
    except OSError as error:
        _fail(error, where, entry)


def _fail(error: OSError, where: str, entry: Mapping[str, Any]) -> NoReturn:
    if error.errno == errno.ELOOP:
        raise Refused(f"cannot mount {where} in the container", status=1,
                      why="a symlink of the image stands in the way, and it must be a real folder",
                      next="an image without that symlink") from error  # fmt: skip
    said = [line.strip() for line in getattr(error, "__notes__", ())]
    raise LabError(f"cannot mount {where} in the container", status=1,
                   why="; ".join([f"{error.strerror or error}", *said]),
                   next=f"source and options of the entry: {entry.get('source', '')} "
                        f"{','.join(entry.get('options', ()))}") from error  # fmt: skip


def _data(parsed: Parsed, kind: str, config: Mapping[str, Any]) -> str:
    """The file system's own options; with an SELinux label, where it can have one."""
    label = config.get("linux", {}).get("mountLabel", "")
    if not label or kind in UNLABELLED:
        return parsed.data
    return ",".join(filter(None, (parsed.data, f'context="{label}"')))


def _as_below(root: int, where: str, data: str) -> str:
    """A tmpfs's options; where they say no mode, with that of the folder that it will cover.

    Without one it is anybody's to write into, wherever it lies.
    """
    if any(option.startswith("mode=") for option in data.split(",")):
        return data
    try:
        fd = beneath.find(root, where)
    except OSError:
        return data  # it will be made
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    return ",".join(filter(None, (f"mode={mode:04o}", data)))


def _mount(entry: Mapping[str, Any], parsed: Parsed, root: int, data: str, kind: str = "") -> None:
    """A file system of its own, by mount(2)."""
    kind = kind or entry.get("type", "")
    target = beneath.make(root, entry["destination"], folder=True, follow=kind not in REAL)
    try:
        _may_lie_there(root, target, kind, None)
        name = f"/proc/self/fd/{target}"
        flags = parsed.flags & ~(C.MS_BIND | C.MS_REC)
        if kind == "tmpfs":
            flags &= ~C.MS_RDONLY  # until all is made that lies on it: see root.finish
        source = entry.get("source", kind)
        attempts.attempt(f"{kind or 'no type'} from {source}", "mount", source, name, kind, flags, data or None)
    finally:
        os.close(target)


def _bind(entry: Mapping[str, Any], parsed: Parsed, root: int, bundle: StrPath, tree: int | None) -> None:
    """Something that is there already, shown here too: by descriptors from the first look to the last."""
    if tree is None:
        tree = source(entry, bundle, parsed)
    try:
        folder = stat.S_ISDIR(os.fstat(tree).st_mode)
        target = beneath.make(root, entry["destination"], folder=folder)
        try:
            _may_lie_there(root, target, "bind", tree)
            if parsed.on or parsed.off:
                mounts.set_attributes(tree, on=parsed.on, off=parsed.off)
            mounts.attach(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def source(entry: Mapping[str, Any], bundle: StrPath, parsed: Parsed) -> int:
    """A detached copy of what a bind mount shows. Raises LabError when it is not there, OSError."""
    path = os.path.join(bundle, entry.get("source", ""))
    try:
        fd = os.open(path, C.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"cannot show {path}", why=f"{error.strerror} on this machine",
                       next="a bind mount's source must be there before") from error  # fmt: skip
    try:
        return mounts.tree(fd, recursive=bool(parsed.flags & C.MS_REC))
    finally:
        os.close(fd)


def _may_lie_there(root: int, target: int, kind: str, tree: int | None) -> None:
    """Raise Refused for a mount over a part of /proc, or a /proc that is none."""
    if kind == "proc":
        return
    if mounts.magic(target) == C.PROC_SUPER_MAGIC:
        where = beneath.place(root, target)
        if where not in EMULATED:
            raise Refused(f"{where} lies inside /proc", next=f"one of {', '.join(sorted(EMULATED))}",
                          why="a file put there would be taken for the kernel's word by whoever reads it")  # fmt: skip
        return
    if beneath.place(root, target) == "/proc" and (tree is None or mounts.magic(tree) != C.PROC_SUPER_MAGIC):
        raise Refused("what lies on /proc must be a proc file system", next="type proc",
                      why="this runtime itself, and every program, believes what stands there")  # fmt: skip


def _cgroup(entry: Mapping[str, Any], parsed: Parsed, root: int, config: Mapping[str, Any]) -> None:
    """The cgroup tree, as the container's cgroup namespace shows it: its own part, or without one the machine's.

    So that what /proc/self/cgroup says is found below it: both go by that namespace.
    """
    kinds = {one["type"] for one in config.get("linux", {}).get("namespaces", ())}
    if "cgroup" in kinds or "user" not in kinds:
        try:
            _mount({**entry, "source": "cgroup"}, parsed, root, "", kind="cgroup2")
            return
        except (LabError, OSError):
            if "user" not in kinds:
                raise
    # In a user namespace the kernel mounts it only where the cgroup namespace is of that one too: show the same.
    top = mounts.place_of("cgroup2")
    if top is None:
        raise LabError("there is no cgroup v2 tree here", next="leave the mount out")
    if "cgroup" in kinds:
        with open("/proc/self/cgroup") as file:
            top += next(line[3:].strip() for line in file if line.startswith("0::"))
    shown = {"destination": entry["destination"], "source": top}
    _bind(shown, parsed._replace(flags=parsed.flags | C.MS_BIND | C.MS_REC), root, "/", None)
    fd = beneath.find(root, entry["destination"])
    try:
        mounts.set_attributes(fd, propagation=C.MS_PRIVATE)  # the machine's own may be shared
    finally:
        os.close(fd)


def _copied_up(entry: Mapping[str, Any], parsed: Parsed, root: int) -> None:
    """A tmpfs that begins with what the folder below held (tmpcopyup)."""
    from labkit.runtime.files import copyup

    data = _as_below(root, entry["destination"], parsed.data)  # before it is made
    target = beneath.make(root, entry["destination"], folder=True)
    try:
        _may_lie_there(root, target, "tmpfs", None)
        below = os.open(f"/proc/self/fd/{target}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        name = f"/proc/self/fd/{target}"
        flags = parsed.flags & ~(C.MS_RDONLY | C.MS_BIND | C.MS_REC)
        attempts.attempt("tmpfs", "mount", "tmpfs", name, "tmpfs", flags, data or None)
    finally:
        os.close(target)
    above = beneath.find(root, entry["destination"])
    try:
        copyup.copy(below, f"/proc/self/fd/{above}")
        if parsed.flags & C.MS_RDONLY:
            mounts.set_attributes(above, on=C.MOUNT_ATTR_RDONLY)
    finally:
        os.close(above)
        os.close(below)


def _afterwards(parsed: Parsed, root: int, where: str) -> None:
    """What holds for all mounts below too, and propagation: on the mount that now lies there."""
    if not (parsed.all_on or parsed.all_off or parsed.propagation):
        return
    fd = beneath.find(root, where)
    try:
        if parsed.all_on or parsed.all_off:
            mounts.set_attributes(fd, on=parsed.all_on, off=parsed.all_off, recursive=True)
        for how in parsed.propagation:
            call("mount", None, f"/proc/self/fd/{fd}", None, how, None)
    finally:
        os.close(fd)
