"""Floor 3: the container's view of files, made from inside its new mount namespace.

Owns: the root, /proc, /sys and /dev, the volumes, and what is masked or read-only.
The order is the order in which the kernel must be asked: private first, so that nothing
of this reaches the machine; the root; the mounts on it; and the pivot last, after which
the machine's files cannot be named any more.

Read: mount_namespaces(7), pivot_root(2), the OCI runtime specification, config "Mounts".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.kernel import constants as C
from labkit.kernel import mounts
from labkit.kernel.syscalls import openat2
from labkit.runtime import defaults
from labkit.storage.overlay import Root


def build(config: dict[str, Any], root: Root, target: Path) -> None:
    """Make the whole tree on `target`; the calling process must be in a new mount namespace."""
    # slave, not private: a device unplugged on the machine also goes here (runc does the same).
    mounts.propagate("/", "rslave")
    root.mount(target)
    # With the nodes of /dev bound from the machine, no other device need open in here.
    mounts.reflag(target, ["nodev"])
    mounts.propagate(target, "private")
    for mount in config["mounts"]:
        place(mount, target)
        if mount["destination"] == "/dev":
            fill_dev(target)


def place(mount: dict[str, Any], root: Path) -> None:
    """Mount one entry of config.json's `mounts`, its target resolved beneath `root` by the kernel."""
    source, options = str(mount.get("source", "")), list(mount.get("options", []))
    bind = mount["type"] == "bind"
    if bind and not os.path.exists(source):
        raise LabError(f"cannot mount {source} in the container", why="it does not exist on the machine")
    make = "file" if bind and not os.path.isdir(source) else "folder"
    try:
        # Through a descriptor: a symlink that the image put in the way is not followed again.
        with beneath(root, mount["destination"], make=make) as target:
            mounts.mount(source, target, mount["type"], options)
        if bind and mounts.flag_bits(options) & ~mounts.flag_bits(["rbind"]):
            # Opened anew, since the first descriptor names what lies below the new mount.
            with beneath(root, mount["destination"]) as target:
                mounts.reflag(target, options)
    except LabError as error:
        raise LabError(
            f"cannot mount {mount['destination']} in the container", why=error.why, next=error.next
        ) from error


@contextmanager
def beneath(root: Path, path: str, *, make: str = "") -> Iterator[str]:
    """A name for `path` beneath `root` that no symlink can bend: its descriptor in /proc/self/fd."""
    fd = open_beneath(root, path, make=make)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def open_beneath(root: Path, path: str, *, make: str = "") -> int:
    """A descriptor (O_PATH) of `path` as the container will see it; missing parts are made.

    The kernel resolves symlinks and .. as if `root` were / (openat2, RESOLVE_IN_ROOT).
    Raises OSError.
    """
    top = os.open(root, C.O_PATH | os.O_CLOEXEC)
    try:
        try:
            return openat2(top, path, C.O_PATH, resolve=C.RESOLVE_IN_ROOT)
        except FileNotFoundError:
            if not make:
                raise
        parent, _, name = path.rstrip("/").rpartition("/")
        above = open_beneath(root, parent or "/", make="folder")
        try:
            if make == "folder":
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=above))
        finally:
            os.close(above)
        return openat2(top, path, C.O_PATH, resolve=C.RESOLVE_IN_ROOT)
    finally:
        os.close(top)


def fill_dev(root: Path) -> None:
    """The six devices every program expects, and the links that make stdout a file name."""
    with beneath(root, "/dev") as folder:
        dev = Path(folder)
        for name in defaults.DEVICES:
            (dev / name).touch()
            mounts.mount(f"/dev/{name}", dev / name, None, ["bind"])
        for name, points_to in defaults.DEVICE_LINKS.items():
            (dev / name).symlink_to(points_to)


def write_sysctls(values: dict[str, str]) -> None:
    """Kernel settings that belong to the container's own namespaces, before /proc/sys is sealed."""
    for name, value in values.items():
        try:
            Path("/proc/sys", *name.split(".")).write_text(value)
        except OSError as error:
            raise LabError(f"cannot set the sysctl {name} to {value!r}", why=str(error)) from error


def seal(masked: list[str], read_only: list[str]) -> None:
    """Hide the paths that tell about the machine and freeze those that would change it.

    Runs after the pivot.  A path that this kernel does not have is no loss.
    """
    for path in read_only:
        if os.path.lexists(path):
            mounts.read_only(path)
    for path in masked:
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            raise
        if stat.S_ISDIR(mode):
            mounts.mount("tmpfs", path, "tmpfs", ["ro", "size=0k"])
        else:
            mounts.mount("/dev/null", path, None, ["bind"])
