"""Floor 2: what COPY means becomes files in a tree.

Owns: where each source lands (in a folder, in the place of a file, the content of a folder), and making
the copies with owner, mode, attributes and links.  The destination is found by the kernel as if the tree's
root were /: a link of the image's leads to a place in the image.

Read: Docker's "Dockerfile reference", COPY; openat2(2) on RESOLVE_IN_ROOT; copy_file_range(2).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from labkit.errors import BadInput
from labkit.image.build.context import Found, Tree
from labkit.image.build.patterns import Patterns
from labkit.image.build.users import numbers
from labkit.image.extract import taken
from labkit.kernel import constants as C
from labkit.kernel.syscalls import openat2

CHUNK = 1 << 24  # bytes
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class How(NamedTuple):
    """The options of a COPY; `when` is the time that new files get, nanoseconds since 1970."""

    when: int
    chown: str = ""
    mode: int | None = None
    exclude: Patterns = Patterns()


class Target:
    """A tree to copy into, seen at `root`."""

    def __init__(self, root: Path, how: How) -> None:
        self.root = os.open(root, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.how = how
        self.owner = numbers(how.chown, self.root) if how.chown else None
        self.links: dict[tuple[int, int], str] = {}  # a file's first copy

    # --- places --------------------------------------------------------------------------

    def folder(self, path: str) -> int:
        """A descriptor of the folder `path`, made where it is missing. Raises BadInput, OSError."""
        fd = os.dup(self.root)
        walked = ""
        for part in [part for part in path.split("/") if part]:
            walked = f"{walked}/{part}"
            try:
                following = self._open(walked)
            except NotADirectoryError:
                raise BadInput(f"{walked} in the image is no folder", next="another destination") from None
            except FileNotFoundError:
                try:
                    os.mkdir(part, 0o755, dir_fd=fd)
                except FileExistsError:
                    raise BadInput(f"{walked} in the image is a link that leads to nothing",
                                   next="another destination") from None  # fmt: skip
                os.chmod(part, 0o755, dir_fd=fd)
                os.chown(part, *(self.owner or (0, 0)), dir_fd=fd)
                following = self._open(walked)
            os.close(fd)
            fd = following
        return fd

    def _open(self, path: str) -> int:
        return openat2(self.root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=C.RESOLVE_IN_ROOT)

    def place(self, destination: str, name_: str, *, is_folder: bool = False) -> tuple[int, str]:
        """(open folder, name) that a source called `name_` becomes; for a folder's content the name is "."."""
        if is_folder or destination.endswith("/"):
            return self.folder(destination), "." if is_folder else name_
        where, _, name = destination.rstrip("/").rpartition("/")
        try:
            fd = openat2(self.root, destination, C.O_PATH, resolve=C.RESOLVE_IN_ROOT)
        except FileNotFoundError:
            return self.folder(where), name
        except NotADirectoryError:
            raise BadInput(f"{where} in the image is no folder", next="another destination") from None
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                return self.folder(destination), name_
            # Through a link the file that it leads to is replaced, in whichever folder that lies.
            real = posixpath.relpath(os.readlink(f"/proc/self/fd/{fd}"), os.readlink(f"/proc/self/fd/{self.root}"))
        finally:
            os.close(fd)
        where, _, name = real.rpartition("/")
        return self.folder(where), name

    # --- copies --------------------------------------------------------------------------

    def copy(self, tree: Tree, found: Sequence[Found], destination: str) -> None:
        """All that was found, to `destination`, an absolute path. Raises BadInput, OSError."""
        for each in found:
            self.links.clear()
            folder, name = self.place(destination, each.name, is_folder=stat.S_ISDIR(each.looks.st_mode))
            try:
                if name == ".":
                    self._content(tree, each.path, folder)
                else:
                    self._one(f"{tree.root}/{each.path}", each.looks, folder, name, tree.owners)
            finally:
                os.close(folder)

    def write(self, name: str, data: bytes, destination: str) -> None:
        """A file out of the Dockerfile itself. Raises BadInput, OSError."""
        folder, name = self.place(destination, name)
        try:
            _clear(folder, name)
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                os.fchown(fd, *(self.owner or (0, 0)))
                os.fchmod(fd, 0o644 if self.how.mode is None else self.how.mode)
            os.utime(name, ns=(self.how.when, self.how.when), dir_fd=folder)
        finally:
            os.close(folder)

    def _content(self, tree: Tree, path: str, top: int) -> None:
        """The content of a folder; its entries come a folder before what is in it."""
        opened: list[tuple[str, int]] = [("", top)]
        dressed: list[tuple[str, os.stat_result]] = []
        try:
            for below, looks in tree.walk(path, self.how.exclude):
                where, _, name = below.rpartition("/")
                while opened[-1][0] and opened[-1][0] != where and not where.startswith(f"{opened[-1][0]}/"):
                    os.close(opened.pop()[1])
                while opened[-1][0] != where:  # a folder that --exclude leaves out, with something in it that is not
                    part = where[len(opened[-1][0]) :].lstrip("/").partition("/")[0]
                    _make_folder(opened[-1][1], part, below)
                    inner = os.open(part, FOLDER, dir_fd=opened[-1][1])
                    opened.append((f"{opened[-1][0]}/{part}".lstrip("/"), inner))
                source = f"{tree.root}/{path}/{below}"
                self._one(source, looks, opened[-1][1], name, tree.owners)
                if stat.S_ISDIR(looks.st_mode):
                    dressed.append((below, looks))
                    opened.append((below, os.open(name, FOLDER, dir_fd=opened[-1][1])))
        finally:
            for _, fd in opened[1:]:
                os.close(fd)

    def _one(self, source: str, looks: os.stat_result, folder: int, name: str, owners: bool) -> None:
        kind = stat.S_IFMT(looks.st_mode)
        if kind == stat.S_IFSOCK:
            return  # no layer can hold one
        if kind == stat.S_IFDIR:
            _make_folder(folder, name, name)
        else:
            _clear(folder, name)
            if kind == stat.S_IFREG:
                if looks.st_nlink > 1 and self._linked(looks, folder, name):
                    return
                _copy_bytes(source, folder, name)
            elif kind == stat.S_IFLNK:
                os.symlink(os.readlink(source), name, dir_fd=folder)
            else:
                os.mknod(name, kind | 0o600, looks.st_rdev, dir_fd=folder)
        uid, gid = self.owner or ((looks.st_uid, looks.st_gid) if owners else (0, 0))
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            mode = stat.S_IMODE(looks.st_mode) if self.how.mode is None else self.how.mode
            os.chmod(name, mode, dir_fd=folder)
        place = f"/proc/self/fd/{folder}/{name}"
        for key in os.listxattr(source, follow_symlinks=False):
            if taken(key):
                os.setxattr(place, key, os.getxattr(source, key, follow_symlinks=False), follow_symlinks=False)
        if kind != stat.S_IFDIR:
            # A context's times are those of a checkout; a stage's are the same each time.
            when = min(looks.st_mtime_ns, self.how.when) if owners else self.how.when
            os.utime(name, ns=(when, when), dir_fd=folder, follow_symlinks=False)

    def _linked(self, looks: os.stat_result, folder: int, name: str) -> bool:
        """Give a file that is here already its further name; else remember it, and False."""
        key = (looks.st_dev, looks.st_ino)
        if key in self.links:
            os.link(self.links[key], name, dst_dir_fd=folder, follow_symlinks=False)
            return True
        self.links[key] = f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}"
        return False


def _make_folder(folder: int, name: str, path: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            raise BadInput(f"a folder cannot be copied onto {path}", why="in the image that is no folder",
                           next="another destination, or RUN rm before") from None  # fmt: skip


def _clear(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError) as error:
        raise BadInput(f"a file cannot be copied onto the folder {name}", why="in the image that is a folder",
                       next="another destination, or RUN rm -r before") from error  # fmt: skip


def _copy_bytes(source: str, folder: int, name: str) -> None:
    """In the kernel, sharing the blocks where the file system can."""
    inward = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        outward = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            while _pass(inward, outward):
                pass
        finally:
            os.close(outward)
    finally:
        os.close(inward)


def _pass(inward: int, outward: int) -> int:
    try:
        return os.copy_file_range(inward, outward, CHUNK)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(outward, inward, None, CHUNK)
