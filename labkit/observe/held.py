"""Reading floor: namespaces, and what keeps each of them alive.

Owns: the four things that hold a namespace: members, bind mounts of its file, open
descriptors, and namespaces below it; and its owner and parent.

Read: namespaces(7), ioctl_ns(2), pid_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Mapping

from labkit.kernel.namespaces import KINDS
from labkit.observe.model import Namespace, Process
from labkit.observe.mountinfo import Mount
from labkit.observe.processes import GONE, parse_link

Key = tuple[str, int]  # kind and inode

NS_GET_USERNS = 0xB701  # include/uapi/linux/nsfs.h, Linux 4.9
NS_GET_PARENT = 0xB702
NS_GET_NSTYPE = 0xB703  # Linux 4.11
NS_GET_MNTNS_ID = 0x8008B705  # Linux 6.11
NS_GET_ID = 0x8008B70D  # Linux 6.18
NESTED = ("pid", "user")  # kinds that have a parent
# Where the children of a process will be, when it is not where the process is itself.
FOR_CHILDREN = {"pid": "pid_for_children", "time": "time_for_children"}


def members(processes: Iterable[Process]) -> dict[Key, list[int]]:
    """{namespace: pids in it, the lowest first}."""
    found: dict[Key, list[int]] = {}
    for process in sorted(processes):
        for kind, inode in process.namespaces.items():
            found.setdefault((kind, inode), []).append(process.pid)
    return found


def key(text: str) -> Key | None:
    """The namespace that a link's or a mount's text names: net:[4026531840]; None for anything else."""
    kind, bracket, _ = text.partition(":[")
    return (kind, parse_link(text)) if bracket and kind in KINDS else None


def bind_mounts(table: Iterable[Mount], root: str = "") -> dict[Key, list[str]]:
    """Namespaces whose file is bind-mounted in a mount table, as `ip netns add` does.

    root -- where the table's root can be seen from here: /proc/PID/root, or "" for our own.
    """
    found: dict[Key, list[str]] = {}
    for mount in table:
        if mount.kind == "nsfs" and (named := key(mount.root)):
            found.setdefault(named, []).append(root + mount.place)
    return found


def descriptors(pids: Iterable[int]) -> dict[Key, list[str]]:
    """Namespaces that these processes hold by an open file, or for children that they have yet to make."""
    found: dict[Key, list[str]] = {}
    for pid in sorted(pids):
        try:
            for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
                _note(found, f"/proc/{pid}/fd/{name}")
            for kind, file in FOR_CHILDREN.items():
                path = f"/proc/{pid}/ns/{file}"
                if os.path.exists(path) and os.readlink(path) != os.readlink(f"/proc/{pid}/ns/{kind}"):
                    _note(found, path)
        except (*GONE, PermissionError):
            continue
    return found


def _note(found: dict[Key, list[str]], path: str) -> None:
    try:
        text = os.readlink(path)
    except FileNotFoundError:
        return  # closed meanwhile
    # pid_for_children reads pid:[...] too.  One that was opened by a bind mount reads as that mount's place.
    if named := key(text) or (_behind(path) if text.startswith("/") else None):
        found.setdefault(named, []).append(path)


def _behind(path: str) -> Key | None:
    """The namespace whose file this is; None for any other file, which is not opened."""
    try:
        inode = os.stat(path).st_ino
        fd = open_file([path], inode)
    except OSError:
        return None  # a file that is deleted, or gone meanwhile
    if fd is None:
        return None
    try:
        flag = fcntl.ioctl(fd, NS_GET_NSTYPE)
        return next(((kind.name, inode) for kind in KINDS.values() if kind.flag == flag), None)
    except OSError:
        return None  # before Linux 4.11
    finally:
        os.close(fd)


def read(known: Mapping[Key, list[int]], files: Mapping[Key, list[str]], *, above: bool = True) -> dict[Key, Namespace]:
    """The namespaces that have members or files.

    above -- also those that only live because others below or in them do (a user namespace
    that owns another one, a pid namespace whose processes are out of sight).
    """
    found: dict[Key, Namespace] = {}
    all_known = {*known, *files}
    for named in sorted(all_known):
        kind, _ = named
        ways = [*files.get(named, ()), *(f"/proc/{pid}/ns/{kind}" for pid in known.get(named, ()))]
        fd = open_file(ways, named[1])
        facts = (0, 0, 0) if fd is None else _facts(fd, kind, found, all_known if above else None)
        found[named] = Namespace(kind, named[1], tuple(known.get(named, ())), tuple(files.get(named, ())), *facts)
    return dict(sorted(found.items()))


def open_file(ways: Iterable[str], inode: int) -> int | None:
    """A descriptor of the namespace by the first path that still leads to it; None when none does."""
    device = os.stat("/proc/self/ns/mnt").st_dev  # one file system holds all namespaces
    for path in ways:
        try:
            # Looked at before it is opened: what covers the file by now may be anything, a device too.
            seen = os.stat(path)
            if (seen.st_dev, seen.st_ino) == (device, inode):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # gone, or forbidden
    return None


def _facts(fd: int, kind: str, found: dict[Key, Namespace], known: set[Key] | None) -> tuple[int, int, int]:
    """(owner, parent, unique number) of the namespace behind `fd`, which is closed."""
    try:
        owner = _related(fd, NS_GET_USERNS, "user", found, known)
        # Of a user namespace, the owner is the parent.
        parent = owner if kind == "user" else _related(fd, NS_GET_PARENT, kind, found, known) if kind in NESTED else 0
        return owner, parent, _unique(fd, kind)
    finally:
        os.close(fd)


def _unique(fd: int, kind: str) -> int:
    for question in (NS_GET_ID, *([NS_GET_MNTNS_ID] if kind == "mnt" else [])):
        try:
            return int(struct.unpack("=Q", fcntl.ioctl(fd, question, bytes(8)))[0])
        except OSError:
            continue  # ENOTTY: an older kernel
    return 0


def _related(fd: int, question: int, kind: str, found: dict[Key, Namespace], known: set[Key] | None) -> int:
    try:
        other = fcntl.ioctl(fd, question)
    except OSError:
        return 0  # EPERM: none, or outside what the reader may see; ENOTTY: before Linux 4.9
    inode = os.fstat(other).st_ino
    named = (kind, inode)
    if known is None or named in known or named in found:
        os.close(other)
    else:
        found[named] = Namespace(kind, inode, (), (), 0, 0)  # it is being read: an end to the recursion
        found[named] = Namespace(kind, inode, (), (), *_facts(other, kind, found, known))
    return inode


def place_of_root(pids: Iterable[int]) -> tuple[int, str] | None:
    """(pid, /proc/PID/root) of the first process whose root is its mount namespace's; else of the first at all.

    A process in a chroot sees but the part of the mount table that lies below its root.
    """
    first = None
    for pid in pids:
        try:
            top = os.readlink(f"/proc/{pid}/root") == "/"
        except (*GONE, PermissionError):
            continue
        if top:
            return pid, f"/proc/{pid}/root"
        first = first or (pid, f"/proc/{pid}/root")
    return first
