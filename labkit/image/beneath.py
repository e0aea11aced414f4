"""Floor 2: folders beneath a root, found by the kernel, never by comparing strings.

Owns: every path of a layer is resolved as if the root were / (openat2, RESOLVE_IN_ROOT): a
`..` or a symlink, absolute or chained, leads to a place beneath the root or nowhere.  What is
then made, is made by its last name in the open folder.

Read: openat2(2); path_resolution(7).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from labkit.errors import BadInput
from labkit.kernel import constants as C
from labkit.kernel.syscalls import openat2


class Beneath:
    """The folders beneath `root`; the last one stays open, since entries come folder by folder."""

    def __init__(self, root: Path) -> None:
        self.root = os.open(root, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # inode of each folder written into: a path to it, and its time in the end, ns since 1970
        self.times: dict[int, tuple[str, int]] = {}
        self.implied: list[str] = []  # folders that were made because something lies in them
        self._open: tuple[str, int] | None = None

    def close(self) -> None:
        """Close the open folders."""
        self.forget()
        os.close(self.root)

    def forget(self) -> None:
        """Close the folder that stayed open: what it is called may be something else now."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def resolve(self, path: str) -> int:
        """A descriptor (O_PATH) of a folder. Raises OSError."""
        return openat2(self.root, path or ".", C.O_PATH | os.O_DIRECTORY, resolve=C.RESOLVE_IN_ROOT)

    def folder(self, path: str) -> int:
        """The folder `path`, made where it is missing; it belongs to this object. Raises BadInput, OSError."""
        if self._open is not None and self._open[0] == path:
            return self._open[1]
        try:
            fd = self.resolve(path)
        except FileNotFoundError:
            self._imply(path)
            fd = self.resolve(path)
        except NotADirectoryError:
            raise _no_folder(path) from None
        self.forget()
        self._open = (path, fd)
        seen = os.fstat(fd)
        self.times.setdefault(seen.st_ino, (path, seen.st_mtime_ns))
        return fd

    def _imply(self, path: str) -> None:
        """Make the folders on the way, from the top down."""
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            try:
                os.close(self.resolve(part))
                continue
            except FileNotFoundError:
                pass
            except NotADirectoryError:
                raise _no_folder(part) from None
            above = self.resolve("/".join(parts[: depth - 1]))
            try:
                os.mkdir(parts[depth - 1], 0o755, dir_fd=above)
            except FileExistsError:  # a symlink that leads nowhere
                raise _no_folder(part) from None
            finally:
                os.close(above)
            self.implied.append(part)

    def restore_times(self) -> None:
        """Folders get their times last: making something in them has changed these.

        Those that the layer only writes into keep the times that they had, as with umoci.
        """
        for inode, (path, when) in self.times.items():
            try:
                fd = self.resolve(path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry of the layer has replaced it
            try:
                # Of an O_PATH descriptor the times can only be set by a path.
                if os.fstat(fd).st_ino == inode:
                    os.utime(f"/proc/self/fd/{fd}/.", ns=(when, when))
            finally:
                os.close(fd)


def dress_as_below(root: Path, implied: list[str], below: list[Path]) -> None:
    """Give folders that a layer only implied the looks of those in the layers beneath it (bottom first)."""
    if not implied or not below:
        return
    mine = Beneath(root)
    stack = [Beneath(folder) for folder in reversed(below)]
    try:
        for path in implied:
            seen = next((looks for each in stack if (looks := _stat(each, path)) is not None), None)
            if seen is None:
                continue
            try:
                fd = mine.resolve(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                inside = f"/proc/self/fd/{fd}/."
                os.chown(inside, seen.st_uid, seen.st_gid)
                os.chmod(inside, stat.S_IMODE(seen.st_mode))
                os.utime(inside, ns=(seen.st_mtime_ns, seen.st_mtime_ns))
            finally:
                os.close(fd)
    finally:
        for each in (mine, *stack):
            each.close()


def _stat(place: Beneath, path: str) -> os.stat_result | None:
    try:
        fd = place.resolve(path)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _no_folder(path: str) -> BadInput:
    return BadInput(
        f"a layer puts something below {path!r}, which is no folder",
        why="it is a file, or a link to what the image does not hold: outside its root nothing is looked for",
    )
