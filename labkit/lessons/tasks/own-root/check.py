"""Top floor: the check of own-root.

Owns: a machine to leave, a folder to move into, and the look back from inside its mount namespace.
Read: pivot_root(2), mount_namespaces(7), setns(2) on the root that a mount namespace gives.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from labkit.kernel.namespaces import inode, join
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import mountinfo


def check(pivot: Callable[[str], None], lab: Ground) -> None:
    """Look at the root, the working folder and the mounts of the caller, and at those of the machine."""
    folder, token = lab.folder(), lab.token()
    (folder / token).touch()
    machine = {mount.place for mount in mountinfo.read(lab.outside)}
    caller = lab.child("caller")
    Child.do(caller, os.chdir, str(folder.parent), stage="begin")
    failed = None
    try:
        caller.do(pivot, str(folder))
    except Exception as error:
        failed = error
    if leaked := sorted({mount.place for mount in mountinfo.read(lab.outside)} - machine):
        raise Wrong(f"a mount on {shown(leaked[0], folder)} can be seen outside: a new mount namespace begins as a copy, "
                    "and the copy of a shared mount is shared with it")  # fmt: skip
    if isinstance(failed, OSError) and failed.errno in (errno.EINVAL, errno.EBUSY) and "pivot_root" in str(failed):
        mounted = any(mount.place == str(folder) for mount in mountinfo.read(caller.pid))
        raise Wrong(f"pivot_root refused: {errno.errorcode[failed.errno]}. In the caller's mountinfo, "
                    + ("the folder is a mount" if mounted else "the folder is not a mount, and a root must be one"))  # fmt: skip
    if failed is not None:
        raise failed
    look(caller.pid, folder, token, lab)


def look(pid: int, folder: Path, token: str, lab: Ground) -> None:
    """Whether `pid` lives in the folder, and nothing else is left in its mount namespace."""
    if inode("mnt", pid) == inode("mnt", lab.outside):
        raise Wrong(f"it is still in the mount namespace it came from ({inode('mnt', pid)}): "
                    "what it did to its root it did to everybody's")  # fmt: skip
    root, own = os.stat(f"/proc/{pid}/root"), os.stat(folder)
    if not os.path.samestat(root, own):
        raise Wrong(f"the root of process {pid} is not the folder: {token}, which lies in it, is not in its /")
    # setns gives whoever enters the namespace's own root: chroot has not moved that.
    visitor = lab.child("visitor")
    Child.do(visitor, join, pid, ["mnt"], stage="visit")
    mounts = [mount.place for mount in mountinfo.read(visitor.pid)]
    if not os.path.samestat(os.stat(f"/proc/{visitor.pid}/root"), own):
        raise Wrong(f"process {pid} has changed its root, but whoever enters its mount namespace lands in the machine's "
                    f"root, among {len(mounts)} mounts")  # fmt: skip
    if len(mounts) > 1:
        raise Wrong(
            f"the old root is still mounted, on {min(mounts[1:], key=len)}: the namespace has {len(mounts)} mounts, and not 1"
        )
    if not os.path.samestat(os.stat(f"/proc/{pid}/cwd"), root):
        raise Wrong("its working folder lies outside the new root: from there, .. leads on to the machine's files")


def shown(place: str, folder: Path) -> str:
    return "the folder" if place == str(folder) else place
