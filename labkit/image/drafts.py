"""Floor 2: things in the making, which get their name only when they are whole.

Owns: the drafts beside blobs and layers.  Who makes a draft holds a lock on it (flock(2)),
which the kernel takes away when that process ends, however it ends: a draft that can be
locked is a dead one's, and goes when the next is begun.

Read: flock(2), rename(2).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".draft."


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in `folder` among all who ask so; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def draft(beside: Path, *, directory: bool = False) -> Iterator[Path]:
    """An empty file or folder beside `beside`, to be filled and renamed; what is not renamed goes."""
    with locked(beside):  # none may sweep between making the draft and locking it
        _sweep(beside)
        if directory:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=beside))
        else:
            fd, name = tempfile.mkstemp(prefix=PREFIX, dir=beside)
            os.close(fd)
            path = Path(name)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        _remove(path)
        os.close(fd)


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}*"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        except BlockingIOError:
            pass  # its maker lives
        finally:
            os.close(fd)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
