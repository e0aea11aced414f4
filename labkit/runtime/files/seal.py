"""Floor 3: the last touches in the new root: kernel settings, what is read-only, what is hidden.

Owns: doing each of them on a descriptor that was looked at, since a container that shares a volume with
another may swap names meanwhile: what hides a file is the null device itself (CVE-2025-31133), and what
is written as a kernel setting is a file of a real proc (CVE-2025-52881).

No /proc of the container's is needed: mounts are attached by descriptors.

Read: the OCI runtime specification, config-linux.md, "Masked Paths", "Readonly Paths", "Sysctl".
"""

from __future__ import annotations

import errno
import os
import stat

from labkit.errors import LabError, Refused
from labkit.kernel import constants as C
from labkit.kernel import mounts
from labkit.kernel.syscalls import openat2
from labkit.lean import TYPE_CHECKING
from labkit.runtime.files import beneath

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOT_THERE = {errno.ENOENT, errno.ENOTDIR}
NULL = os.makedev(1, 3)


def settings(values: Mapping[str, str]) -> None:
    """Write linux.sysctl into a proc of our own, which no mount of the container's covers. Raises LabError."""
    if not values:
        return
    proc = _proc()
    try:
        for name, value in values.items():
            path = name if "/" in name.partition(".")[0] else name.replace(".", "/")
            if not {"", ".", ".."}.isdisjoint(path.split("/")):  # said before, and the last to be deceived is here
                raise Refused(f"linux.sysctl.{name} is no name of a kernel setting", status=1)
            try:
                resolve = C.RESOLVE_BENEATH | C.RESOLVE_NO_XDEV | C.RESOLVE_NO_SYMLINKS
                fd = openat2(proc, f"sys/{path}", os.O_WRONLY, resolve=resolve)
                try:
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except OSError as error:
                raise LabError(f"cannot set linux.sysctl.{name} to {value!r}", status=1,
                               why=f"{error.strerror} (errno {error.errno})",
                               next=f"sysctl {name} shows what this kernel has") from error  # fmt: skip
    finally:
        os.close(proc)


def _proc() -> int:
    try:
        return mounts.new("proc", attributes=C.MOUNT_ATTR_NOSUID | C.MOUNT_ATTR_NODEV | C.MOUNT_ATTR_NOEXEC)
    except OSError:  # a user namespace in which parts of the old /proc are covered may not have a new one
        fd = os.open("/proc", C.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if mounts.magic(fd) != C.PROC_SUPER_MAGIC:
            os.close(fd)
            raise Refused("cannot set linux.sysctl", why="/proc is no proc file system here", status=1) from None
        return fd


def freeze(paths: Iterable[str], root: int) -> None:
    """Make each path, and what is mounted below, read-only; one that is not there is no loss. Raises LabError."""
    for path in paths:
        if (fd := _find(root, path)) is None:
            continue
        try:
            tree = mounts.tree(fd, recursive=True)
            try:
                mounts.set_attributes(tree, on=C.MOUNT_ATTR_RDONLY, recursive=True)
                mounts.attach(tree, fd)
            finally:
                os.close(tree)
        except OSError as error:
            raise LabError(f"cannot make {path} read-only", why=str(error), status=1) from error
        finally:
            os.close(fd)


def close(path: str, root: int) -> None:
    """Make the mount on `path` read-only, and not its file system, as runc does. Raises LabError."""
    if (fd := _find(root, path)) is None:
        return
    try:
        mounts.set_attributes(fd, on=C.MOUNT_ATTR_RDONLY)
    except OSError as error:
        raise LabError(f"cannot make {path} read-only", why=str(error), status=1) from error
    finally:
        os.close(fd)


def hide(paths: Iterable[str], root: int) -> None:
    """Lay the null device over each file, and an empty folder over each folder. Raises LabError."""
    for path in paths:
        if (fd := _find(root, path)) is None:
            continue
        try:
            folder = stat.S_ISDIR(os.fstat(fd).st_mode)
            tree = mounts.new("tmpfs", ("ro",), C.MOUNT_ATTR_RDONLY, source="tmpfs") if folder else _null(root, path)
            try:
                mounts.attach(tree, fd)
            finally:
                os.close(tree)
        except OSError as error:
            raise LabError(f"cannot hide {path}", why=str(error), status=1) from error
        finally:
            os.close(fd)


def _find(root: int, path: str) -> int | None:
    try:
        return beneath.find(root, path, follow=not path.startswith("/proc/"))
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise LabError(f"cannot look at {path}", why=str(error), status=1) from error


def _null(root: int, path: str) -> int:
    fd = beneath.find(root, "/dev/null", follow=False)
    try:
        found = os.fstat(fd)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != NULL:
            raise Refused(f"cannot hide {path}", why="/dev/null in the container is not the null device", status=1,
                          next="let the runtime make /dev: mount a tmpfs on it")  # fmt: skip
        return mounts.tree(fd)
    finally:
        os.close(fd)
