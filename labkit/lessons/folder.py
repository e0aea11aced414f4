"""Top floor: a folder on the machine's own disk that ends with its notebook.

Owns: the folder's place and name, removing it when the notebook's process ends, and
removing those of notebooks that were killed before they could.

Read: hier(7): /tmp may be memory, and a lesson about disks needs one; kill(2) on signal 0.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

from labkit import paths

PREFIX = "scratch-"
OWNED = re.compile(rf"{PREFIX}.*-([0-9]+)-[^-]+")


def scratch(name: str) -> Path:
    """A new empty folder for the notebook `name`; what killed notebooks left behind goes first.

    What is mounted in it must be unmounted before the end: nothing is removed through a mount
    of a child's, which ends with the child.  Raises OSError where the disk takes nothing.
    """
    top = paths.data()
    top.mkdir(parents=True, exist_ok=True)
    for old in left(top):
        shutil.rmtree(old, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-{os.getpid()}-", dir=top))
    atexit.register(_end, made, os.getpid())
    return made


def left(top: Path) -> list[Path]:
    """The folders whose notebook's process is no more."""
    found = [(path, OWNED.fullmatch(path.name)) for path in sorted(top.glob(f"{PREFIX}*"))]
    return [path for path, owned in found if owned and not Path(f"/proc/{owned[1]}").exists()]


def _end(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a process that it forked
        shutil.rmtree(folder, ignore_errors=True)
