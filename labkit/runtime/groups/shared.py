"""Floor 3: the folder that this runtime's containers share: made by the first, given back by the last.

Owns: the lock under which containers come and go, and the note of what is handed down on their account: which
controllers nobody had handed down before, written onto the folder itself (an extended attribute), so that it ends
with the folder and with the boot.

Read: cgroup-v2.rst, "Top-down Constraint"; flock(2), xattr(7).
"""

from __future__ import annotations

import errno
import fcntl
import os

from labkit.errors import Refused
from labkit.kernel import cgroups

HANDED = "user.labkit.handed"
TRIES = 1000


def enter(folder: str, hand_down: set[str]) -> int:
    """Make the folder, and note which controllers are handed down from now on; its lock, to be closed.

    The lock is on a file that root alone can open: with any other, a user could hold all containers up.
    Raises Refused, OSError.
    """
    lock = _locked(folder)
    try:
        if new := hand_down - set(cgroups.read(os.path.dirname(folder), "cgroup.subtree_control").split()):
            os.setxattr(folder, HANDED, " ".join(sorted(new | _handed(folder))).encode())
    except OSError as error:
        # Before Linux 5.7, or somebody else's folder: then they stay handed down, as with runc.
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            os.close(lock)
            raise
    return lock


def leave(folder: str) -> None:
    """Take the folder away if it is empty, and back what was handed down on its account. Raises OSError."""
    file = f"{folder}/cgroup.kill"
    try:
        lock = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with os.scandir(folder) as entries:
            others = any(entry.is_dir() for entry in entries)
        if others or not _names(file, lock):
            return  # it is gone, or another container is in it
        # Before it goes, while whoever comes next still waits for the lock; and from below, or the top has EBUSY.
        for one in (folder, os.path.dirname(folder)):
            cgroups.disable(one, _handed(folder))
        os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
            raise
        # Somebody put a process into it, or it is gone.
    finally:
        os.close(lock)


def _locked(folder: str) -> int:
    file = f"{folder}/cgroup.kill"
    for _ in range(TRIES):
        try:
            os.mkdir(folder)
        except FileExistsError:
            pass
        try:
            lock = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # the last container has just taken it along
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _names(file, lock):
            return lock
        os.close(lock)  # while this process waited, it went
    raise Refused(f"cannot lock the cgroup {folder}", why="it has no file cgroup.kill: Linux 5.14", status=1)


def _names(file: str, fd: int) -> bool:
    """Whether this name still leads to the file that is open."""
    try:
        return os.stat(file).st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def _handed(folder: str) -> set[str]:
    try:
        return set(os.getxattr(folder, HANDED).decode().split())
    except OSError:
        return set()
