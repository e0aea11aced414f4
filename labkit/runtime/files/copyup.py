"""Floor 3: what a folder of the image holds, copied into the tmpfs that covers it (the mount option tmpcopyup).

Owns: the copy, with modes, owners and symlinks as they are.

Read: crun's and runc's documentation of tmpcopyup; the library's shutil.
"""

from __future__ import annotations

import os
import shutil
import stat


def copy(folder: int, to: str) -> None:
    """Copy what a folder holds, with modes, owners and symlinks as they are."""
    start = f"/proc/self/fd/{folder}"
    for name in sorted(os.listdir(folder)):
        source, target = f"{start}/{name}", f"{to}/{name}"
        mode = os.lstat(source).st_mode
        if stat.S_ISDIR(mode):
            shutil.copytree(source, target, symlinks=True, copy_function=_copy_owned)
            shutil.copystat(source, target)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            _copy_owned(source, target)
            continue
        _own(source, target)
    _own(start, to)  # and its mode is the mount's: of the folder below, or as mode= says


def _copy_owned(source: str, target: str) -> str:
    shutil.copy2(source, target, follow_symlinks=False)
    _own(source, target)
    return target


def _own(source: str, target: str) -> None:
    # Through the last name only where it is no symlink: start itself is one of /proc/self/fd.
    found = os.stat(source) if source.startswith("/proc/self/fd/") and source.count("/") == 4 else os.lstat(source)
    if os.path.lexists(target):
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=not stat.S_ISLNK(found.st_mode))
