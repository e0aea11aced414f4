"""Floor 2: what a step left in its writable folder becomes a layer.

Owns: making it reproducible (times no later than the build's, nothing in it that changed nothing),
writing it into the store in one pass, and giving the folder its name among the unpacked layers: what was
just made need not be unpacked again.

Read: overlayfs.rst, "whiteouts and opaque directories"; reproducible-builds.org, SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from labkit.image import layers
from labkit.image.build.cache import Layer, above
from labkit.image.build.problems import taught
from labkit.image.diff import attributes, diff, opaque
from labkit.image.drafts import draft
from labkit.image.store import Store
from labkit.kernel.removal import remove

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def seal(store: Store, upper: Path, lower: Sequence[Path], below: str, when: int, stubs: Sequence[str] = ()) -> Layer:
    """Make the layer of `upper`, which then lies among the unpacked layers (and no longer at `upper`).

    lower -- the folders beneath, bottom first; below -- their chain ID; when -- seconds since 1970 that no
    file's time exceeds; stubs -- files and folders that were made only to mount something on.
    Raises LabError, and then nothing of it is kept.
    """
    try:
        settle(upper, lower, when, stubs)
        layer = _write(store, upper)
        name = layers.folder() / above(below, layer.diff_id).removeprefix("sha256:")
        try:
            upper.rename(name)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else: it is there already
                raise
    except OSError as error:
        raise taught(error, "cannot keep a new layer") from error
    return layer


def settle(upper: Path, lower: Sequence[Path], when: int, stubs: Sequence[str] = ()) -> None:
    """Take out what the step did not change, and clamp the times that it left."""
    for path in stubs:
        _unstub(upper, lower, path.strip("/"))
    limit = when * 1_000_000_000
    for place, folders, files in os.walk(upper, topdown=False):
        for name in [*files, *folders]:
            path = f"{place}/{name}"
            looks = os.lstat(path)
            if stat.S_ISDIR(looks.st_mode) and _unchanged(upper, lower, path, looks):
                os.rmdir(path)
            elif looks.st_mtime_ns > limit or looks.st_mtime_ns % 1_000_000_000:
                # A layer holds whole seconds, so that the folder and what is unpacked from it are alike.
                time = min(limit, looks.st_mtime_ns // 1_000_000_000 * 1_000_000_000)
                os.utime(path, ns=(time, time), follow_symlinks=False)


def _unstub(upper: Path, lower: Sequence[Path], path: str) -> None:
    """Remove an empty file or folder that the layers below do not have, and what was made above it."""
    while path:
        try:
            looks = os.lstat(upper / path)
        except OSError:
            return
        if beneath(lower, path) is not None or (stat.S_ISREG(looks.st_mode) and looks.st_size):
            return
        try:
            remove(upper / path) if not stat.S_ISDIR(looks.st_mode) else os.rmdir(upper / path)
        except OSError:
            return  # a folder with something in it
        path = path.rpartition("/")[0]


def _unchanged(upper: Path, lower: Sequence[Path], path: str, looks: os.stat_result) -> bool:
    """An empty folder that is as it is below: something came and went in it."""
    there = beneath(lower, os.path.relpath(path, upper))
    if there is None or os.listdir(path):
        return False
    old = os.lstat(there)
    alike = (old.st_mode, old.st_uid, old.st_gid) == (looks.st_mode, looks.st_uid, looks.st_gid)
    return alike and not opaque(path) and _attributes(Path(path)) == _attributes(there)


def beneath(lower: Sequence[Path], path: str) -> Path | None:
    """Where the layers below have `path`, top one first; None where they do not, or have deleted it."""
    parts = path.split("/")
    for folder in reversed(lower):
        for depth in range(1, len(parts) + 1):
            place = folder / "/".join(parts[:depth])
            try:
                looks = os.lstat(place)
            except OSError:
                break
            if stat.S_ISCHR(looks.st_mode) and looks.st_rdev == 0:
                return None
            if depth == len(parts):
                return place
            if not stat.S_ISDIR(looks.st_mode):
                return None
            if opaque(place):
                return place / "/".join(parts[depth:]) if os.path.lexists(folder / path) else None
    return None


def _attributes(path: Path) -> dict[str, bytes]:
    return {key: os.getxattr(path, key, follow_symlinks=False) for key in attributes(path)}


class _Tee:
    """A file to write to: what is written is hashed, compressed, and hashed again."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.plain, self.packed = hashlib.sha256(), hashlib.sha256()
        self.size = self.position = 0
        self.squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)  # 31: a gzip header, without name and time

    def write(self, data: bytes) -> int:
        self.plain.update(data)
        self._pass(self.squeeze.compress(data))
        self.position += len(data)
        return len(data)

    def tell(self) -> int:
        return self.position

    def end(self) -> None:
        self._pass(self.squeeze.flush())

    def _pass(self, data: bytes) -> None:
        self.packed.update(data)
        self.size += len(data)
        self.file.write(data)


def _write(store: Store, upper: Path) -> Layer:
    with draft(store.blobs) as unfinished:
        with unfinished.open("wb", buffering=1 << 20) as file:
            tee = _Tee(file)
            diff(upper, tee)  # type: ignore[arg-type]  # tarfile only writes
            tee.end()
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the name without the bytes
        digest = f"sha256:{tee.packed.hexdigest()}"
        unfinished.chmod(0o644)
        unfinished.rename(store.path(digest))
    return Layer(LAYER, digest, tee.size, f"sha256:{tee.plain.hexdigest()}", content(upper))


def content(folder: Path) -> int:
    """Bytes of the files in a layer's folder, each inode once: what docker history calls its size."""
    total, seen = 0, set[int]()
    for place, _, files in os.walk(folder):
        for name in files:
            looks = os.lstat(f"{place}/{name}")
            if stat.S_ISREG(looks.st_mode) and looks.st_ino not in seen:
                seen.add(looks.st_ino)
                total += looks.st_size
    return total
