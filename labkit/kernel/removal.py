"""Floor 1: removing a tree that somebody else shaped.

Owns: doing it with a handful of descriptors and no recursion, however deep the tree is, and
without following a link: each folder's folders are first moved up beside it.  (What came from
somewhere else may nest folders a thousand deep, which is more than shutil.rmtree can take.)

Read: unlink(2), renameat(2), openat(2) on O_NOFOLLOW.
"""

from __future__ import annotations

import errno
import os
from itertools import count

from labkit.lean import StrPath

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NO_FILE = (errno.EISDIR, errno.EPERM)  # Linux says EISDIR, POSIX allows EPERM


def remove(name: StrPath, dir_fd: int | None = None) -> None:
    """Remove the file or tree `name`; nothing there is fine. Raises OSError."""
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
    top = os.open(name, FLAGS, dir_fd=dir_fd)
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
            fd = os.open(folder, FLAGS, dir_fd=top)
            try:
                for inner in _unlink_all(fd):
                    os.rename(inner, next(names), src_dir_fd=fd, dst_dir_fd=top)
            finally:
                os.close(fd)
            os.rmdir(folder, dir_fd=top)


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
