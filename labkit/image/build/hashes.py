"""Floor 2: what the files of a context hash to, remembered from build to build.

Owns: one file a context, $LABKIT_DATA/build/contexts/HASH: an inode, its size and its two times stand for
its bytes.  A file that changed a moment ago is read again each time: within one tick of the kernel's clock
a second change would leave the times as they are.

Read: inode(7); the chapter "racy-git" in git's own documentation.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from labkit import paths

SETTLED = 200_000_000  # nanoseconds after which a file's times are trusted; a tick is 10 ms at most
Known = dict[str, list[object]]


class Hashes:
    """Call it with a path and its looks; `keep` writes down what it learnt."""

    def __init__(self, context: Path) -> None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(context))).hexdigest()
        self.file = paths.data() / "build" / "contexts" / name
        self.known = self._load()
        self.used: Known = {}
        self.changed = False

    def _load(self) -> Known:
        try:
            found = json.loads(self.file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def __call__(self, path: str, looks: os.stat_result) -> str:
        """The sha256 of a file. Raises OSError."""
        key = f"{looks.st_dev}:{looks.st_ino}"
        signs = [looks.st_size, looks.st_mtime_ns, looks.st_ctime_ns]
        known = self.known.get(key)
        if isinstance(known, list) and known[:3] == signs:
            self.used[key] = known
            return str(known[3])
        with open(path, "rb", buffering=0) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if time.time_ns() - max(looks.st_mtime_ns, looks.st_ctime_ns) > SETTLED:
            self.used[key] = [*signs, found]
            self.changed = True
        return found

    def keep(self) -> None:
        """Remember what was used; a file that cannot be written costs time, and nothing else."""
        if not self.changed and len(self.used) == len(self.known):
            return
        draft = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self.used))
            draft.rename(self.file)
        except OSError:
            draft.unlink(missing_ok=True)
