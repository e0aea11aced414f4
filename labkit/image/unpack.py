"""Floor 2: layers out of their tar archives.

Owns: extraction that cannot leave its root.  Every path is resolved by the kernel as if
the root were / (openat2, RESOLVE_IN_ROOT), and every object is then made by its last
name in an open folder: a `..`, an absolute symlink or a hard link in a hostile layer
reaches nothing outside.

Read: the OCI image specification, layer ("Whiteouts"); overlayfs.rst ("whiteouts and
opaque directories"); openat2(2).
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from labkit.errors import BadInput, LabError, Refused, explain
from labkit.image import model
from labkit.image.store import Image, check
from labkit.image.stream import PlainStream
from labkit.kernel import constants as C
from labkit.kernel.syscalls import openat2

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
OPAQUE_MARK = "trusted.overlay.opaque"
XATTR = "SCHILY.xattr."  # the pax header in which tar carries extended attributes
# Others belong to the machine (trusted.overlay.* would forge overlayfs's own marks).
XATTRS_TAKEN = ("user.", "security.capability")
COPY = 1 << 20  # bytes


def flatten(image: Image, root: Path) -> None:
    """All layers, one applied onto the other, as one root file system in `root`. Raises LabError."""
    for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
        apply(image.store.path(layer.digest), model.LAYERS[layer.media_type], diff_id, root, overlay=False)


def apply(
    blob: Path, compression: str, diff_id: str, root: Path, *, overlay: bool, below: list[Path] | None = None
) -> None:
    """Extract one layer into `root`, in one pass over its bytes.

    overlay -- deletions become overlayfs's marks; otherwise they delete.
    below   -- the folders of the layers beneath, for folders that the archive only implies.
    Raises Mismatch when the plain bytes are not `diff_id`'s; BadInput for an entry that
    cannot be meant.
    """
    stream = PlainStream(blob, compression)
    extractor = Extractor(root, overlay, below or [])
    try:
        try:
            with tarfile.open(
                fileobj=cast("tarfile._Fileobj", stream), mode="r|", bufsize=COPY, tarinfo=Header
            ) as archive:
                for entry in archive:
                    _add(extractor, archive, entry)
                    cast(Any, archive).members = []  # else the archive remembers every entry
        except tarfile.TarError as error:
            raise BadInput("a layer is no tar archive", why=str(error)) from error
        actual = stream.drain()
        extractor.finish()
        check(diff_id, actual, "the plain text of a layer")
    finally:
        extractor.close()
        stream.close()


class Header(tarfile.TarInfo):
    """A header; one that is damaged is an error, where tarfile would take it for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Header:
        """The next header of the archive. Raises tarfile.ReadError."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):
                raise  # these two are an honest end
            raise tarfile.ReadError(f"a header is damaged: {error}") from error


def _add(extractor: Extractor, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
    """Make one entry; what the kernel or Python says against it names the entry."""
    try:
        extractor.add(archive, entry)
    except PermissionError as error:
        if os.geteuid() == 0:
            explain(error, f"cannot unpack {entry.name!r}")
        raise Refused(f"cannot unpack {entry.name!r}", why=str(error), next="run it as root") from error
    except OSError as error:
        explain(error, f"cannot unpack {entry.name!r}")
    except (ValueError, OverflowError) as error:  # a NUL in a name; a time or a device beyond the kernel's
        raise BadInput(f"a layer holds an impossible entry: {entry.name!r}", why=str(error)) from error


class Extractor:
    """One layer on its way into one folder."""

    def __init__(self, root: Path, overlay: bool, below: list[Path]) -> None:
        self.root = os.open(root, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.overlay = overlay
        self.below = below
        self.made: set[str] = set()  # what this layer brought: an opaque mark spares it
        self.folder_times: dict[str, int] = {}  # path: nanoseconds since 1970, set at the end
        self._parent: tuple[str, int] | None = None

    def close(self) -> None:
        """Close the open folders."""
        self._forget_parent()
        os.close(self.root)

    def add(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        """Make one entry. Raises BadInput, OSError."""
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        if not parts:
            if entry.isdir():
                self._dress(self.root, ".", entry)
                self.folder_times["."] = _nanoseconds(entry)
            return
        name = parts[-1]
        if name == "..":
            raise BadInput(f"a layer holds an entry that names no file: {entry.name!r}")
        where = "/".join(parts[:-1])
        folder = self._open_folder(where)
        if name == OPAQUE:
            self._opaque(where, folder)
        elif name.startswith(WHITEOUT):
            self._whiteout(where, folder, name.removeprefix(WHITEOUT), entry.name)
        else:
            self._make(archive, entry, where, folder, name)
            self.made.add("/".join(parts))

    def finish(self) -> None:
        """Folders get their times last: making something in them has changed these.

        Those that the layer only writes into keep the times that they had, as with umoci.
        """
        for path, when in self.folder_times.items():
            where, _, name = path.rpartition("/")
            try:
                folder = self._resolve(where)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry of the layer has replaced it
            try:
                if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                    os.utime(name, ns=(when, when), dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                pass
            finally:
                os.close(folder)

    # --- where ---------------------------------------------------------------------------

    def _open_folder(self, path: str) -> int:
        """The folder `path` beneath the root, made where it is missing; one is kept open."""
        if self._parent is not None and self._parent[0] == path:
            return self._parent[1]
        try:
            fd = self._resolve(path)
        except FileNotFoundError:
            self._imply(path)
            fd = self._resolve(path)
        except NotADirectoryError:
            raise BadInput(f"a layer puts something below {path!r}, which is no folder") from None
        self._forget_parent()
        self._parent = (path, fd)
        self.folder_times.setdefault(path or ".", os.fstat(fd).st_mtime_ns)
        return fd

    def _resolve(self, path: str) -> int:
        return openat2(self.root, path or ".", C.O_PATH | os.O_DIRECTORY, resolve=C.RESOLVE_IN_ROOT)

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _imply(self, path: str) -> None:
        """Make the folders on the way; they look like those of the layers below, if there are any."""
        where, _, name = path.rpartition("/")
        if where:
            try:
                os.close(self._resolve(where))
            except FileNotFoundError:
                self._imply(where)
        above = self._resolve(where)
        try:
            os.mkdir(name, 0o755, dir_fd=above)
            for folder in reversed(self.below):
                try:
                    seen = _stat_beneath(folder, path)
                except OSError:
                    continue
                os.chown(name, seen.st_uid, seen.st_gid, dir_fd=above)
                os.chmod(name, stat.S_IMODE(seen.st_mode), dir_fd=above)
                self.folder_times.setdefault(path, seen.st_mtime_ns)
                break
        except FileExistsError:
            raise BadInput(f"a layer puts something below {path!r}, which is no folder") from None
        finally:
            os.close(above)

    # --- what ----------------------------------------------------------------------------

    def _make(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, where: str, folder: int, name: str) -> None:
        if entry.isdir():
            self._make_folder(folder, name)
            self.folder_times[f"{where}/{name}" if where else name] = _nanoseconds(entry)
        elif entry.isreg():
            self._clear(folder, name)
            self._write(archive, entry, folder, name)
            return
        elif entry.islnk():
            self._link(entry, folder, name)
            return
        elif entry.issym():
            self._clear(folder, name)
            os.symlink(entry.linkname, name, dir_fd=folder)
        elif entry.ischr() or entry.isblk() or entry.isfifo():
            self._clear(folder, name)
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK if entry.isblk() else stat.S_IFIFO
            os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=folder)
        else:
            raise BadInput(f"a layer holds an entry of an unknown kind: {entry.name!r} ({entry.type!r})")
        self._dress(folder, name, entry)

    def _make_folder(self, folder: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            there = os.lstat(name, dir_fd=folder)
            if not stat.S_ISDIR(there.st_mode):
                self._clear(folder, name)
                os.mkdir(name, 0o700, dir_fd=folder)
                if self.overlay and stat.S_ISCHR(there.st_mode) and there.st_rdev == 0:
                    # Deleted and made again: what the layers below had there must stay hidden.
                    os.setxattr(f"/proc/self/fd/{folder}/{name}", OPAQUE_MARK, b"y")

    def _write(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            source = archive.extractfile(entry)
            if source is not None:
                while data := source.read(COPY):
                    while data:  # the kernel may take less than all, when the disk is nearly full
                        data = data[os.write(fd, data) :]
            if os.geteuid() == 0:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            for key, value in _xattrs(entry):
                os.setxattr(fd, key, value)
            os.utime(fd, (entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _link(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        """A hard link; its target is a path beneath the root, whatever it looks like."""
        where, _, target = entry.linkname.strip("/").rpartition("/")
        if target in ("", ".", ".."):
            raise BadInput(f"a layer holds a hard link to no file: {entry.name!r} -> {entry.linkname!r}")
        try:
            source = self._resolve(where)
        except OSError as error:
            raise BadInput(f"hard link {entry.name!r} leads nowhere: {entry.linkname!r}", why=str(error)) from error
        try:
            there = os.lstat(target, dir_fd=source)
            if stat.S_ISDIR(there.st_mode):
                raise BadInput(f"hard link {entry.name!r} leads to a folder: {entry.linkname!r}")
            if _same(there, folder, name):
                return
            self._clear(folder, name)
            os.link(target, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError as error:
            raise BadInput(
                f"hard link {entry.name!r} leads nowhere: {entry.linkname!r}", why="its layer holds no such file"
            ) from error
        finally:
            os.close(source)

    def _dress(self, folder: int, name: str, entry: tarfile.TarInfo) -> None:
        """Owner first: changing it clears set-user-ID and capabilities."""
        if os.geteuid() == 0:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        if not entry.issym():
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=folder)
        path = f"/proc/self/fd/{folder}/{name}"
        for key, value in _xattrs(entry):
            os.setxattr(path, key, value, follow_symlinks=False)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    # --- deletions -----------------------------------------------------------------------

    def _whiteout(self, where: str, folder: int, name: str, full: str) -> None:
        """A deletion is of what the layers below hold; what this layer brought stays."""
        if name in ("", ".", "..") or name.startswith(".wh."):
            if name.startswith(".wh."):
                return  # aufs's own bookkeeping in old images
            raise BadInput(f"a layer deletes what has no name: {full!r}")
        path = f"{where}/{name}" if where else name
        if path in self.made or any(made.startswith(f"{path}/") for made in self.made):
            try:
                inside = os.open(name, C.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            except OSError:
                return  # no folder: it hides what lies below it already
            try:
                self._opaque(path, inside)
            finally:
                os.close(inside)
            return
        self._clear(folder, name)
        if self.overlay:
            try:
                os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=folder)
            except PermissionError as error:
                raise LabError("cannot mark a deletion", why="device 0/0 may be made by root only") from error

    def _opaque(self, where: str, folder: int) -> None:
        if self.overlay:
            os.setxattr(f"/proc/self/fd/{folder}/.", OPAQUE_MARK, b"y")
            return
        for name in os.listdir(f"/proc/self/fd/{folder}/."):
            path = f"{where}/{name}" if where else name
            if path not in self.made and not any(made.startswith(f"{path}/") for made in self.made):
                self._clear(folder, name)

    def _clear(self, folder: int, name: str) -> None:
        """Remove what stands at `name` now, a whole folder too; nothing there is fine."""
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(name, dir_fd=folder)
            keep = self._parent
            if keep is not None and keep[1] != folder:
                self._forget_parent()


def _nanoseconds(entry: tarfile.TarInfo) -> int:
    return round(entry.mtime * 1_000_000_000)


def _stat_beneath(folder: Path, path: str) -> os.stat_result:
    """What stands at `path` beneath `folder`, which a hostile path cannot leave."""
    root = os.open(folder, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat2(root, path, C.O_PATH | os.O_DIRECTORY, resolve=C.RESOLVE_IN_ROOT)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
    finally:
        os.close(root)


def _same(one: os.stat_result, folder: int, name: str) -> bool:
    try:
        return os.path.samestat(one, os.lstat(name, dir_fd=folder))
    except FileNotFoundError:
        return False


def _xattrs(entry: tarfile.TarInfo) -> Iterator[tuple[str, bytes]]:
    for header, text in entry.pax_headers.items():
        key = header.removeprefix(XATTR)
        if key != header and key.startswith(XATTRS_TAKEN):
            yield key, text.encode("utf-8", "surrogateescape")
