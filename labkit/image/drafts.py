"""Floor 2: things in the making, which get their name only when they are whole.

Owns: the drafts beside blobs and layers.  Who makes a draft holds a lock on it (flock(2)),
which the kernel takes away when that process ends, however it ends: a draft that can be
locked is a dead one's, and goes when the next is begun.

Read: flock(2), rename(2).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.kernel.removal import remove

PREFIX = ".draft."


@contextmanager
def locked(folder: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Alone in `folder` among all who ask so, or `shared` with those who ask for that; the folder is made.

    Raises BlockingIOError when somebody else has it and `wait` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)


@contextmanager
def draft(beside: Path, *, directory: bool = False) -> Iterator[Path]:
    """An empty file or folder beside `beside`, to be filled and renamed; what is not renamed goes."""
    import tempfile  # costs 5 ms, and most who hold a lock make no draft

    with locked(beside):  # none may sweep between making the draft and locking it
        sweep(beside)
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


def sweep(folder: Path) -> int:
    """Remove the drafts of the dead; how many there were."""
    count = 0
    for path in folder.glob(f"{PREFIX}*"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
            count += 1
        except BlockingIOError:
            pass  # its maker lives
        finally:
            os.close(fd)
    return count


def _remove(path: Path) -> None:
    try:
        remove(path)
    except OSError:
        pass  # what somebody holds on to goes with the next draft
