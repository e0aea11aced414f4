"""Floor 1: which of pivot_root's conditions failed on this machine.

Owns: one finder for each check of pivot_root in the kernel's fs/namespace.c: its arguments
(new_root, put_old) in, what was found out; None when it is not this one.

Read: pivot_root(2), mount_namespaces(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
from typing import Any

from labkit.kernel import constants as C
from labkit.kernel import mountinfo
from labkit.kernel.syscalls import call

Arguments = tuple[Any, ...]


def locked(path: str) -> bool:
    """Whether the mount on `path` came with a less privileged mount namespace (MNT_LOCKED).

    No file shows it.  umount2 with MNT_EXPIRE tells without harm: a locked mount is EINVAL
    before anything else is looked at, and one that we hold open is EBUSY.
    """
    fd = os.open(path, C.O_PATH | os.O_CLOEXEC)
    try:
        call("umount2", f"/proc/self/fd/{fd}", C.MNT_EXPIRE)
    except OSError as error:
        return error.errno == 22  # EINVAL
    finally:
        os.close(fd)
    return False


def missing(arguments: Arguments) -> str | None:
    """A path that does not exist."""
    for name, path in zip(("new root", "put_old"), map(os.fspath, arguments[:2]), strict=False):
        if not os.path.lexists(path):
            return f"the {name} {path} does not exist"
    return None


def unlinked(arguments: Arguments) -> str | None:
    """A folder that was removed while somebody stood in it."""
    for path in map(os.fspath, arguments[:2]):
        place = mountinfo.where(path)
        if os.stat(path).st_nlink == 0 or place.path.endswith(" (deleted)"):
            return f"{place.path.removesuffix(' (deleted)')} has been removed"
    return None


def no_folder(arguments: Arguments) -> str | None:
    """A file where a folder must be."""
    for path in map(os.fspath, arguments[:2]):
        if not os.path.isdir(path):
            return f"{path} is not a folder"
    return None


def other_namespace(arguments: Arguments) -> str | None:
    """new_root belongs to a mount namespace that is not the caller's."""
    place = mountinfo.where(os.fspath(arguments[0]))
    if mountinfo.known(place.id) is not None:
        return None
    for pid, mounts in mountinfo.neighbours(same=False):
        if place.id in mounts:
            return f"{place.path} is on a mount of another mount namespace, that of process {pid}"
    return f"{place.path} is on mount {place.id}, which no mount namespace seen here has"


def root_no_mount_point(arguments: Arguments) -> str | None:
    """A chroot into a plain folder."""
    if any(mount.place == "/" for mount in mountinfo.table().values()):
        return None
    return "this process's root is no mount point: it was put into a plain folder by chroot"


def outside_root(arguments: Arguments) -> str | None:
    """new_root cannot be reached from the present root."""
    place = mountinfo.where(os.fspath(arguments[0]))
    if place.id in mountinfo.table() or mountinfo.known(place.id) is None:
        return None
    return f"the new root is on mount {place.id}, which lies outside the root of this process"


def no_mount_point(arguments: Arguments) -> str | None:
    """new_root is a plain folder."""
    place = mountinfo.where(os.fspath(arguments[0]))
    mount = mountinfo.table().get(place.id)
    if mount is None or mount.place == place.path:
        return None
    return f"{place.path} is not a mount point: bind it to itself first"


def put_old_elsewhere(arguments: Arguments) -> str | None:
    """put_old is not at or below new_root."""
    new, old = (mountinfo.where(os.fspath(path)) for path in arguments[:2])
    if old.path == new.path or old.path.startswith(new.path.rstrip("/") + "/"):
        return None
    return f"put_old, {old.path}, is not at or below the new root {new.path}"


def put_old_shared(arguments: Arguments) -> str | None:
    """The mount that put_old is on is shared; often the new root itself."""
    place = mountinfo.where(os.fspath(arguments[1]))
    mount = mountinfo.table().get(place.id)
    if mount is None or not mount.shared:
        return None
    return f"the mount on {mount.place} is shared: make it private first"


def parent_shared(arguments: Arguments) -> str | None:
    """The mount that new_root is mounted on is shared."""
    place = mountinfo.where(os.fspath(arguments[0]))
    mounts = mountinfo.table()
    if place.id not in mounts:
        return None
    above = mounts.get(mounts[place.id].parent)
    if above is None or not above.shared:
        return None
    return f"the mount {above.place}, on which {place.path} is mounted, is shared: make it private first"


def roots_parent_shared(arguments: Arguments) -> str | None:
    """The mount on which the present root is mounted is shared; only a process outside can see it."""
    root = mountinfo.table().get(mountinfo.where("/").id)
    above = mountinfo.known(root.parent) if root else None
    if root is None or above is None or above.id == root.id or not above.shared:
        return None
    return (
        f"the root of this process is mounted on mount {above.id} ({above.place} seen from outside), and it is shared"
    )


def new_root_locked(arguments: Arguments) -> str | None:
    """new_root came from a more privileged mount namespace."""
    path = os.fspath(arguments[0])
    if mountinfo.mount_at(path) is None or not locked(path):
        return None
    return (
        f"{mountinfo.where(path).path} was inherited from a more privileged mount namespace and is locked in its place"
    )


def root_without_parent(arguments: Arguments) -> str | None:
    """The present root is rootfs, on which everything else is mounted."""
    root = mountinfo.table().get(mountinfo.where("/").id)
    if root is None or (root.parent != root.id and root.kind != "rootfs"):
        return None
    return f"the present root is {root.kind}, the very first mount: it is mounted on nothing and cannot move"


def new_root_on_root(arguments: Arguments) -> str | None:
    """new_root is on the mount that is the root already."""
    new, root = mountinfo.where(os.fspath(arguments[0])), mountinfo.where("/")
    if new.id != root.id:
        return None
    return f"{new.path} is on the very mount that is the root now"


def put_old_on_root(arguments: Arguments) -> str | None:
    """put_old is on the mount that is the root already."""
    old, root = mountinfo.where(os.fspath(arguments[1])), mountinfo.where("/")
    if old.id != root.id:
        return None
    return f"put_old, {old.path}, is on the mount that is the root now, not below the new one"
