"""Floor 1: removing a tree that somebody else shaped.

Owns: doing it with a handful of descriptors and no recursion, however deep the tree is, and
without following a link: each folder's folders are first moved up beside it.  (What came from
somewhere else may nest folders a thousand deep, which is more than shutil.rmtree can take.)
And never what is mounted somewhere in it: that is a volume, or a part of the machine.

Read: unlink(2), renameat(2), openat2(2) on RESOLVE_NO_XDEV.
"""

from __future__ import annotations

import errno
import os
from itertools import count

from labkit.kernel import constants as C
from labkit.kernel.syscalls import openat2
from labkit.lean import StrPath

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
NO_FILE = (errno.EISDIR, errno.EPERM)  # Linux says EISDIR, POSIX allows EPERM


def remove(name: StrPath, dir_fd: int | None = None) -> None:
    """Remove the file or tree `name`; nothing there is fine.

    Raises OSError: EXDEV or EBUSY where something is mounted in it; what is before it is gone then.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
    above, last = os.path.split(os.path.abspath(name) if dir_fd is None else name)
    # The way to it may cross mounts; it must not be one.
    parent = os.open(above or ".", C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        top = _open(last, parent)
    finally:
        os.close(parent)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _empty(top: int) -> None:
    token = os.urandom(8).hex()  # so that no name of theirs is hit
    names = (f".gone.{token}.{number}" for number in count())
    while folders := _unlink_all(top):
        for folder in folders:
            fd = _open(folder, top)
            try:
                for inner in _unlink_all(fd):
                    os.rename(inner, next(names), src_dir_fd=fd, dst_dir_fd=top)
            finally:
                os.close(fd)
            os.rmdir(folder, dir_fd=top)


def _open(name: StrPath, dir_fd: int) -> int:
    """A folder's descriptor, if it lies in the same mount."""
    try:
        return openat2(dir_fd, os.fspath(name), FLAGS, resolve=C.RESOLVE_NO_XDEV)
    except OSError as error:
        if error.errno == errno.EXDEV:
            error.strerror = "something is mounted there, which is not to be removed"
            error.filename = os.fspath(name)
        raise


def _unlink_all(fd: int) -> list[str]:
    """Unlink everything in a folder that is no folder; the names of the folders."""
    folders = []
    with os.scandir(fd) as found:
        for each in found:
            if each.is_dir(follow_symlinks=False):
                folders.append(each.name)
            else:
                os.unlink(each.name, dir_fd=fd)
    return folders
