"""Floor 3: the container's device nodes.

Owns: the six that every program expects and config.json's own, as nodes; as bind mounts of the
machine's where this user may not make nodes (a user namespace); the links beside them; a terminal, and /dev/console.

Read: the OCI runtime specification, config-linux.md, "Devices" and "Default Devices"; mknod(2); TIOCGPTPEER in
ioctl_tty(2).
"""

from __future__ import annotations

import fcntl
import os
import stat

from labkit.errors import LabError, Refused
from labkit.kernel import constants as C
from labkit.kernel import mounts
from labkit.kernel.syscalls import openat2
from labkit.lean import TYPE_CHECKING
from labkit.runtime.files import beneath

if TYPE_CHECKING:
    from typing import Any

DEFAULT: tuple[dict[str, Any], ...] = tuple(
    {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
    for name, major, minor in (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9),
                               ("tty", 5, 0))
)  # fmt: skip
TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
}
TERMINALS = range(136, 144)  # major numbers of Unix 98 terminals (admin-guide/devices.txt)
NO_TERMINALS = "mounts: a devpts on /dev/pts, and no symlink on the way"


def fill(config: dict[str, Any], root: int, *, user_namespace: bool) -> None:
    """Make the nodes and links, unless /dev is the machine's own, bound. Raises LabError."""
    linux = config.get("linux", {})
    if any(one["destination"].rstrip("/") == "/dev" and _is_bind(one) for one in config.get("mounts", ())):
        return
    own = {one["path"] for one in linux.get("devices", ())}
    for device in (*(one for one in DEFAULT if one["path"] not in own), *linux.get("devices", ())):
        try:
            _node(device, root, bind=user_namespace)
        except OSError as error:
            raise LabError(f"cannot make the device {device['path']} in the container", status=1,
                           why=f"{error.strerror} (errno {error.errno})") from error  # fmt: skip
    _links(root)


def _is_bind(entry: dict[str, Any]) -> bool:
    return entry.get("type") == "bind" or bool({"bind", "rbind"} & set(entry.get("options", ())))


def _node(device: dict[str, Any], root: int, *, bind: bool) -> None:
    folder, _, name = device["path"].rpartition("/")
    above = beneath.make(root, folder or "/", folder=True)
    try:
        # Made where nodes do not open (nodev), it would be no device: the machine's own is shown there.
        if bind or os.fstatvfs(above).f_flag & os.ST_NODEV:
            _bound(device, root)
            return
        kind = TYPES[device["type"]]
        numbers = os.makedev(device.get("major", 0), device.get("minor", 0))
        before = os.umask(0)
        try:
            os.mknod(name, kind | device.get("fileMode", 0o666) & 0o7777, numbers, dir_fd=above)
        except FileExistsError:
            _is_it(device, name, above)
            return
        except PermissionError:  # CAP_MKNOD is missing, or the devices cgroup says no
            _bound(device, root)
            return
        finally:
            os.umask(before)
        os.chown(name, device.get("uid", 0), device.get("gid", 0), dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)


def _is_it(device: dict[str, Any], name: str, above: int) -> None:
    """A node that is there already must be that one: the image's /dev/null may be a file of its own."""
    found = os.stat(name, dir_fd=above, follow_symlinks=False)
    same = stat.S_IFMT(found.st_mode) == TYPES[device["type"]]
    if same and device["type"] != "p":
        same = (os.major(found.st_rdev), os.minor(found.st_rdev)) == (device["major"], device["minor"])
    if not same:
        raise Refused(f"{device['path']} is there already, and is something else", status=1,
                      why="the image brings it", next="mount a tmpfs on /dev")  # fmt: skip


def _bound(device: dict[str, Any], root: int) -> None:
    """The machine's own node of that path, shown here."""
    source = os.open(device["path"], C.O_PATH | os.O_CLOEXEC)
    try:
        tree = mounts.tree(source)
        mounts.set_attributes(tree, propagation=C.MS_PRIVATE)  # or it would be a peer of a machine's shared /dev
    finally:
        os.close(source)
    try:
        target = beneath.make(root, device["path"], folder=False)
        try:
            mounts.attach(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def _links(root: int) -> None:
    dev = beneath.make(root, "/dev", folder=True)
    try:
        for name, points_to in LINKS.items():
            if name == "core" and not os.path.exists(points_to):
                continue
            try:
                os.symlink(points_to, name, dir_fd=dev)
            except FileExistsError:
                if name != "ptmx":
                    continue
                # A node here would be the terminals of whatever devpts is around, not of the container's own.
                os.unlink(name, dir_fd=dev)
                os.symlink(points_to, name, dir_fd=dev)
    finally:
        os.close(dev)


def terminal() -> tuple[int, int]:
    """A new terminal of the devpts that is on /dev/pts: its master and its own side.

    Neither end is taken by a name that the image could bend (CVE-2025-52565): no symlink leads there, what is there is
    a devpts, and the master itself gives the other side.  Raises Refused.
    """
    root = os.open("/", C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pts = beneath.find(root, "/dev/pts", follow=False)
        try:
            if mounts.magic(pts) != C.DEVPTS_SUPER_MAGIC:
                raise Refused("there is no devpts on /dev/pts in the container", status=1, next=NO_TERMINALS)
            resolve = C.RESOLVE_BENEATH | C.RESOLVE_NO_XDEV | C.RESOLVE_NO_SYMLINKS
            master = openat2(pts, "ptmx", os.O_RDWR | os.O_NOCTTY, resolve=resolve)
        finally:
            os.close(pts)
        fcntl.ioctl(master, C.TIOCSPTLCK, b"\0\0\0\0")
        return master, fcntl.ioctl(master, C.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused("cannot open a terminal on /dev/pts in the container", next=NO_TERMINALS, status=1,
                      why=f"{error.strerror} (errno {error.errno})") from error  # fmt: skip
    finally:
        os.close(root)


def console(terminal: int, root: int) -> None:
    """Show a terminal as /dev/console; `terminal` is a descriptor of its own side (the slave's).

    Both ends are looked at by descriptor (CVE-2025-52565): the terminal is one of a devpts, and what it is
    shown on is a new file or a console, nothing else that the image put there.  Raises LabError.
    """
    found = os.fstat(terminal)
    if not stat.S_ISCHR(found.st_mode) or os.major(found.st_rdev) not in TERMINALS:
        raise Refused("the console is no terminal", why="its descriptor is no Unix 98 terminal", status=1)
    target = beneath.make(root, "/dev/console", folder=False, follow=False)
    try:
        mode = os.fstat(target).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise Refused("/dev/console is no file", why="the image put something else there", status=1)
        tree = mounts.tree(terminal)
        try:
            mounts.attach(tree, target)
        finally:
            os.close(tree)
    finally:
        os.close(target)
