"""Floor 2: a container's writable folder into a layer: the way back from overlayfs to tar.

Owns: which marks of overlayfs become which names in an archive: a character device 0:0 at
NAME is an empty file `.wh.NAME`, an opaque folder holds an empty file `.wh..wh..opq`.  Owners
are numbers, times whole seconds and names sorted, so that equal folders make equal layers.

Read: the OCI image specification, layer ("Whiteouts"); overlayfs.rst ("whiteouts and
opaque directories"); pax(1) on extended headers.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from labkit.errors import BadInput
from labkit.image.extract import OPAQUE, OPAQUE_MARK, OPAQUE_MARK_OF_USERS, WHITEOUT, taken
from labkit.image.tar import XATTR

# Where overlayfs keeps its marks: a user's overlay is mounted with `userxattr`, since a user may set no trusted.*.
OURS = tuple(mark.removesuffix("opaque") for mark in (OPAQUE_MARK, OPAQUE_MARK_OF_USERS))
# Marks that say "the rest lies in a layer below": a layer with them would be half a file.
POINTERS = {f"{place}{mark}": option for place in OURS
            for mark, option in (("redirect", "redirect_dir"), ("metacopy", "metacopy"))}  # fmt: skip
# A file that stands for a whiteout (Linux 6.7, overlay on overlay).
WHITEOUT_MARKS = tuple(f"{place}whiteout" for place in OURS)
KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class Writer:
    """A layer being written: equal calls make equal bytes."""

    def __init__(self, output: IO[bytes]) -> None:
        self._archive = tarfile.TarFile(fileobj=output, mode="w", format=tarfile.PAX_FORMAT)
        self._seen: dict[tuple[int, int], str] = {}

    def add(self, path: Path, name: str) -> bool:
        """The file at `path` as `name`, or the deletion that it stands for; False for what a layer cannot hold."""
        header = _header(path, name, self._seen)
        if header is None:
            return False
        if header.isreg() and header.size:
            with path.open("rb") as data:
                self._archive.addfile(header, data)
        else:
            self._archive.addfile(header)
        if header.isdir() and opaque(path):
            self._archive.addfile(_empty(f"{name}/{OPAQUE}", header.mtime))
        return True

    def delete(self, name: str) -> None:
        """The deletion of what the layers below hold at `name`; it has no time, since nothing tells it."""
        self._archive.addfile(_empty(_whiteout(name), 0))

    def close(self) -> None:
        """Write the archive's end."""
        self._archive.close()


def diff(upper: Path, output: IO[bytes]) -> None:
    """Write what the writable folder `upper` changed as a plain tar, a layer without compression.

    Sockets are left out, and the root folder itself (both as Docker does).
    Raises BadInput for a folder whose content lies in the layers below (redirect_dir, metacopy).
    """
    writer = Writer(output)
    for path, name in _walk(upper, ""):
        writer.add(path, name)
    writer.close()


def _walk(folder: Path, above: str) -> Iterator[tuple[Path, str]]:
    """Everything below `folder`, a folder before what is in it, names sorted."""
    for name in sorted(os.listdir(folder)):
        path, inside = folder / name, f"{above}{name}"
        yield path, inside
        if stat.S_ISDIR(path.lstat().st_mode):
            yield from _walk(path, f"{inside}/")


def _header(path: Path, name: str, seen: dict[tuple[int, int], str]) -> tarfile.TarInfo | None:
    """The archive's header of one file; None for what a layer cannot hold."""
    info = path.lstat()
    if _is_whiteout(path, info):
        return _empty(_whiteout(name), info.st_mtime)
    if name.rpartition("/")[2].startswith(WHITEOUT):
        raise BadInput(
            f"a layer cannot hold a file called {name}",
            why=f"in layers {WHITEOUT} marks what is deleted: whoever unpacks it would delete, and not write",
            next="another name",
        )
    kind = KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return None
    for mark, option in POINTERS.items():
        if _mark(path, mark) is not None:
            raise BadInput(
                f"cannot make a layer of {path}",
                why=f"it carries {mark}: its content lies in a layer below, under another name or the same",
                next=f"mount the stack with {option}=off; this is why Docker does not use its quick diff with it",
            )
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.mtime = kind, stat.S_IMODE(info.st_mode), int(info.st_mtime)
    header.uid, header.gid = info.st_uid, info.st_gid
    if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
        first = seen.setdefault((info.st_dev, info.st_ino), name)
        if first != name:
            header.type, header.linkname = tarfile.LNKTYPE, first
            return header
    if header.issym():
        header.linkname = os.readlink(path)
    elif header.isreg():
        header.size = info.st_size
    elif header.ischr() or header.isblk():
        header.devmajor, header.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    header.pax_headers = {
        XATTR + key: os.getxattr(path, key, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for key in attributes(path)
    }
    return header


def opaque(path: str | Path) -> bool:
    """Does this folder hide what the layers below have at its place, by root's mark or by a user's?"""
    return any(_mark(path, mark) == b"y" for mark in (OPAQUE_MARK, OPAQUE_MARK_OF_USERS))


def attributes(path: Path) -> list[str]:
    """The extended attributes that belong to the file, not to the machine; sorted."""
    return [key for key in sorted(os.listxattr(path, follow_symlinks=False)) if taken(key)]


def _whiteout(name: str) -> str:
    where, _, last = name.rpartition("/")
    return f"{where}/{WHITEOUT}{last}" if where else f"{WHITEOUT}{last}"


def _is_whiteout(path: Path, info: os.stat_result) -> bool:
    if stat.S_ISCHR(info.st_mode):
        return info.st_rdev == 0
    empty = stat.S_ISREG(info.st_mode) and info.st_size == 0
    return empty and any(_mark(path, mark) is not None for mark in WHITEOUT_MARKS)


def _mark(path: str | Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:  # it has no such attribute
        return None


def _empty(name: str, when: float) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.mtime = int(when)
    return header
