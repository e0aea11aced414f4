"""Floor 2: one entry of a layer after the other into files.

Owns: making what an entry says, owners, modes, times and attributes, in the order in which the
kernel lets them stay; deletions, which spare what their own layer brought.  Where things are
made is labkit.image.beneath's.

Read: the OCI image specification, layer ("Whiteouts"); overlayfs.rst ("whiteouts and
opaque directories"); capabilities(7); inode(7).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from labkit.errors import BadInput, LabError
from labkit.image.beneath import Beneath
from labkit.image.owners import Owners
from labkit.image.tar import Entry, Reader
from labkit.kernel.removal import remove

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
OPAQUE_MARK = "trusted.overlay.opaque"
OPAQUE_MARK_OF_USERS = "user.overlay.opaque"  # whoever may not set the other mounts with `userxattr`
# Others belong to the machine (trusted.overlay.* would forge overlayfs's own marks).
XATTRS_TAKEN = ("user.", "security.capability", "system.posix_acl_")
FORGED = "user.overlay."
NO_TARGET = "the image holds no such file, and outside its root nothing is looked for"
NODES = {"character device": stat.S_IFCHR, "block device": stat.S_IFBLK, "fifo": stat.S_IFIFO}
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
UNDRESSED = 0o700  # a folder's mode until its entry's is set


class Extractor:
    """One layer on its way into one folder."""

    def __init__(self, root: Path, overlay: bool, owners: Owners | None = None, *, layer: bool = True) -> None:
        self.place = Beneath(root)
        self.overlay = overlay
        self.owners = owners
        self.layer = layer  # .wh. names are deletions; in an archive that is no layer they are names
        self.privileged = os.geteuid() == 0
        self.made: set[str] = set()  # what this layer brought, and the folders above: an opaque mark spares it

    def close(self) -> None:
        """Close the open folders."""
        self.place.close()

    def finish(self) -> None:
        """Nothing more comes: set the folders' times."""
        self.place.restore_times()

    def add(self, reader: Reader, entry: Entry) -> None:
        """Make one entry. Raises BadInput, OSError."""
        if self.owners is not None:
            self._translate(self.owners, entry)
        where, _, name = entry.name.rstrip("/").rpartition("/")
        if name in ("", ".", "..") or where[:1] in ("/", ".") or "//" in where or "/." in where:
            parts = [part for part in entry.name.split("/") if part not in ("", ".")]
            if not parts:
                if entry.kind != "folder":
                    what = f"a layer puts a {entry.kind} in the place of the root: {entry.name!r}"
                    raise BadInput(what, why="the root is a folder")
                self._dress_folder(self.place.root, ".", "", entry)
                return
            where, name = "/".join(parts[:-1]), parts[-1]
            if name == "..":
                raise BadInput(
                    f"a layer holds an entry that names no file: {entry.name!r}", why="a name ends with what it names"
                )
        if self.layer and name.startswith(WHITEOUT):
            try:
                folder = self.place.folder(where)
            except BadInput:
                return  # below what is no folder there is nothing to delete; umoci writes such entries itself
            self._delete(where, folder, name, entry)
            return
        folder = self.place.folder(where)
        self._make(reader, entry, where, folder, name)
        self._remember(where, name)

    def _translate(self, owners: Owners, entry: Entry) -> None:
        entry.uid, entry.gid = owners.user(entry.uid), owners.group(entry.gid)
        entry.xattrs = {key: owners.xattr(key, value) for key, value in entry.xattrs.items()}

    def _remember(self, where: str, name: str) -> None:
        self.made.add(f"{where}/{name}" if where else name)
        while where and where not in self.made:
            self.made.add(where)
            where = where.rpartition("/")[0]

    # --- what ----------------------------------------------------------------------------

    def _make(self, reader: Reader, entry: Entry, where: str, folder: int, name: str) -> None:
        kind = entry.kind
        if kind == "file":
            self._write(reader, entry, folder, name)
        elif kind == "folder":
            self._make_folder(folder, name)
            self._dress_folder(folder, name, f"{where}/{name}" if where else name, entry)
        elif kind == "hard link":
            self._link(entry, folder, name)
        elif kind == "symlink":
            self._clear(folder, name)
            os.symlink(entry.link, name, dir_fd=folder)
            self._dress(folder, name, entry)
        elif kind in NODES:
            self._clear(folder, name)
            os.mknod(name, NODES[kind] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=folder)
            self._dress(folder, name, entry)
        else:
            raise BadInput(
                f"a layer holds an entry of an unknown kind: {entry.name!r} ({kind})",
                why="files, folders, links, devices and pipes are known",
            )

    def _write(self, reader: Reader, entry: Entry, folder: int, name: str) -> None:
        try:
            fd = os.open(name, NEW_FILE, 0o600, dir_fd=folder)
        except FileExistsError:
            self._clear(folder, name)
            fd = os.open(name, NEW_FILE, 0o600, dir_fd=folder)
        try:
            if entry.extents is not None:
                _fill_extents(fd, reader, entry)
            elif entry.size:
                for piece in reader.data():
                    _write_all(fd, piece)
            if self.privileged:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            for key, value in entry.xattrs.items():
                if taken(key):
                    os.setxattr(fd, key, value)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _make_folder(self, folder: int, name: str) -> None:
        try:
            os.mkdir(name, UNDRESSED, dir_fd=folder)
        except FileExistsError:
            there = os.lstat(name, dir_fd=folder)
            if stat.S_ISDIR(there.st_mode):
                return
            self._clear(folder, name)
            os.mkdir(name, UNDRESSED, dir_fd=folder)
            if self.overlay and stat.S_ISCHR(there.st_mode) and there.st_rdev == 0:
                # Deleted and made again: what the layers below had there must stay hidden.
                _mark_opaque(f"/proc/self/fd/{folder}/{name}")

    def _link(self, entry: Entry, folder: int, name: str) -> None:
        """A hard link; its target is a path beneath the root, whatever it looks like."""
        where, _, target = entry.link.strip("/").rpartition("/")
        if target in ("", ".", ".."):
            raise BadInput(
                f"hard link {entry.name!r} leads to no file: {entry.link!r}", why="a name ends with what it names"
            )
        try:
            source = self.place.resolve(where)
        except OSError as error:
            raise BadInput(f"hard link {entry.name!r} leads nowhere: {entry.link!r}", why=NO_TARGET) from error
        try:
            there = os.lstat(target, dir_fd=source)
            if stat.S_ISDIR(there.st_mode):
                raise BadInput(
                    f"hard link {entry.name!r} leads to a folder: {entry.link!r}", why="only files take a second name"
                )
            if _same(there, folder, name):
                return
            self._clear(folder, name)
            os.link(target, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError as error:
            raise BadInput(f"hard link {entry.name!r} leads nowhere: {entry.link!r}", why=NO_TARGET) from error
        finally:
            os.close(source)

    def _dress(self, folder: int, name: str, entry: Entry) -> None:
        """Owner first: changing it clears set-user-ID and capabilities."""
        if self.privileged:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        if entry.kind != "symlink":
            os.chmod(name, entry.mode, dir_fd=folder)
        for key, value in entry.xattrs.items():
            if taken(key):
                os.setxattr(f"/proc/self/fd/{folder}/{name}", key, value, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    def _dress_folder(self, folder: int, name: str, path: str, entry: Entry) -> None:
        self._dress(folder, name, entry)
        inode = os.lstat(name, dir_fd=folder).st_ino
        self.place.times[inode] = (path, entry.mtime)

    # --- deletions -----------------------------------------------------------------------

    def _delete(self, where: str, folder: int, name: str, entry: Entry) -> None:
        """A deletion is of what the layers below hold; what this layer brought stays."""
        if name == OPAQUE:
            self._opaque(where, folder)
            return
        name = name.removeprefix(WHITEOUT)
        if name.startswith(WHITEOUT):
            return  # aufs's own bookkeeping in old images
        if name in ("", ".", ".."):
            raise BadInput(
                f"a layer deletes what has no name: {entry.name!r}", why=f"a deletion is {WHITEOUT} and a name"
            )
        path = f"{where}/{name}" if where else name
        if path in self.made:
            try:
                inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
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
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    def _opaque(self, where: str, folder: int) -> None:
        if self.overlay:
            _mark_opaque(f"/proc/self/fd/{folder}/.")
            return
        for name in os.listdir(f"/proc/self/fd/{folder}/."):
            path = f"{where}/{name}" if where else name
            if path not in self.made:
                self._clear(folder, name)

    def _clear(self, folder: int, name: str) -> None:
        """Remove what stands at `name` now, a whole folder too; nothing there is fine."""
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            remove(name, dir_fd=folder)


def _same(one: os.stat_result, folder: int, name: str) -> bool:
    try:
        return os.path.samestat(one, os.lstat(name, dir_fd=folder))
    except FileNotFoundError:
        return False


def taken(key: str) -> bool:
    """Is it an extended attribute that a layer carries?"""
    return key.startswith(XATTRS_TAKEN) and not key.startswith(FORGED)


def _mark_opaque(path: str) -> None:
    try:
        os.setxattr(path, OPAQUE_MARK, b"y")
    except PermissionError:
        os.setxattr(path, OPAQUE_MARK_OF_USERS, b"y")


def _write_all(fd: int, data: bytes | memoryview) -> None:
    while (written := os.write(fd, data)) < len(data):  # less than all, when the disk is nearly full
        data = memoryview(data)[written:]


def _fill_extents(fd: int, reader: Reader, entry: Entry) -> None:
    """Write the pieces of a sparse file at their places; the holes between stay holes."""
    extents = iter(entry.extents or [])
    at = left = 0
    for piece in reader.data():
        rest = memoryview(piece)
        while rest:
            while not left:
                at, left = next(extents)
                os.lseek(fd, at, os.SEEK_SET)
            _write_all(fd, rest[:left])
            taken = min(left, len(rest))
            left, rest = left - taken, rest[taken:]
    os.ftruncate(fd, entry.length)
