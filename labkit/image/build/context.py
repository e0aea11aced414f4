"""Floor 2: what COPY takes from: the build context, or the root of another stage.

Owns: finding what a source means (patterns, links, what .dockerignore leaves out), in a tree that no
link leads out of, and one hash over everything that would be copied: kinds, modes, links, attributes,
contents.  Times are no part of it, so that a fresh checkout is the same context.

Read: Docker's "Dockerfile reference", COPY; openat2(2) on RESOLVE_IN_ROOT.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from labkit.errors import BadInput, NotFound
from labkit.image.build.patterns import Patterns, compiled, is_pattern


class Found(NamedTuple):
    """One thing that a source means."""

    name: str  # its last name, as the source has it: what it is called in a folder
    path: str  # beneath the tree's root, links resolved
    looks: os.stat_result


class Hasher(Protocol):
    """How files are hashed: see labkit.image.build.hashes."""

    def __call__(self, path: str, looks: os.stat_result, /) -> str:
        """The hash of the bytes of a file."""


class Tree:
    """A folder to copy from."""

    def __init__(self, root: Path, ignore: Patterns = Patterns(), *, owners: bool = False) -> None:  # noqa: B008
        self.root = os.path.realpath(root)
        self.ignore = ignore
        self.owners = owners  # files keep theirs (another stage), or all are root's (the context)

    def find(self, source: str) -> list[Found]:
        """What a source means, sorted; nothing for a pattern that meets nothing.

        Raises NotFound for a name that is not there.
        """
        path = posixpath.normpath("/" + source).lstrip("/")
        if not is_pattern(path):
            path = path.replace("\\", "") if "\\" in path else path
            return [self._one(path, source)]
        fixed = []
        parts = path.split("/")
        while parts and not is_pattern(parts[0]):
            fixed.append(parts.pop(0))
        expression, top = compiled("/".join(parts)), "/".join(fixed)
        found = []
        try:
            top_real = self._real(top)
        except OSError:
            return []
        for below, looks in self._below(top_real, stop=expression):
            found.append(Found(below.rpartition("/")[2], f"{top_real}/{below}".lstrip("/"), looks))
        followed = [self._one(each.path, source) if stat.S_ISLNK(each.looks.st_mode) else each for each in found]
        return sorted(followed, key=lambda each: each.path)

    def _one(self, path: str, source: str) -> Found:
        try:
            real = self._real(path)
            if real and not self._wanted(real):
                raise FileNotFoundError
        except (FileNotFoundError, NotADirectoryError):
            raise self._nothing(path, source) from None
        return Found(path.rpartition("/")[2], real, os.lstat(f"{self.root}/{real}"))

    def _nothing(self, path: str, source: str) -> NotFound:
        what = f"there is no {source!r} to copy"
        if self.owners:
            return NotFound(what, why=f"the image has no /{path}", next="check the path, and what the stage makes")
        if not os.path.lexists(f"{self.root}/{path}"):
            why = f"the context {self.root} has no {path}"
            return NotFound(what, why=why, next="a source is a path beneath the context; nothing above it is copied")
        if self.ignore.leave_out(path):
            return NotFound(what, why=".dockerignore leaves it out", next=f"a line !{path} at its end lets it in")
        return NotFound(what, why="it is a link that leads to nothing beneath the context", next="COPY the file itself")

    def _wanted(self, path: str) -> bool:
        """Not left out; of a folder that is, something below may be wanted."""
        if not self.ignore.leave_out(path):
            return True
        if not self.ignore.have_exceptions or not os.path.isdir(f"{self.root}/{path}"):
            return False
        return next(self._below(path), None) is not None

    def _real(self, path: str) -> str:
        """The path with all links resolved beneath the root, by the kernel. Raises OSError."""
        if self._plain(path):
            return path
        from labkit.kernel import constants as C
        from labkit.kernel.syscalls import openat2  # costs 5 ms, and few sources are links

        top = os.open(self.root, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = openat2(top, path or ".", C.O_PATH, resolve=C.RESOLVE_IN_ROOT)
            try:
                return os.readlink(f"/proc/self/fd/{fd}").removeprefix(self.root.rstrip("/")).lstrip("/")
            finally:
                os.close(fd)
        finally:
            os.close(top)

    def _plain(self, path: str) -> bool:
        """No part of it is a link, so there is nothing to resolve. Raises OSError."""
        parts = path.split("/")
        return not any(
            stat.S_ISLNK(os.lstat(f"{self.root}/{'/'.join(parts[:count])}").st_mode)
            for count in range(1, len(parts) + 1)
        )

    def walk(self, path: str, exclude: Patterns = Patterns()) -> Iterator[tuple[str, os.stat_result]]:  # noqa: B008
        """(path below `path`, looks) of everything in that folder that is copied; a folder before what is in it."""
        for below, looks in self._below(path):
            if not exclude.rules or not exclude.leave_out(below):
                yield below, looks

    def _below(self, path: str, stop: re.Pattern[str] | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below a folder, names sorted; with an expression, what matches it, and not what is in that."""
        yield from self._folder(path, "", stop)

    def _folder(self, path: str, above: str, stop: re.Pattern[str] | None) -> Iterator[tuple[str, os.stat_result]]:
        place = f"{self.root}/{path}/{above}".rstrip("/")
        try:
            with os.scandir(place) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except NotADirectoryError:
            return
        for entry in listed:
            below = f"{above}{entry.name}"
            left_out = bool(self.ignore.rules) and self.ignore.leave_out(f"{path}/{below}".lstrip("/"))
            is_folder = entry.is_dir(follow_symlinks=False)
            if left_out and not (is_folder and self.ignore.have_exceptions):
                continue
            matched = stop is None or bool(stop.fullmatch(below))
            inner = self._folder(path, f"{below}/", stop) if is_folder and (stop is None or not matched) else iter(())
            if left_out:  # it comes along with what is wanted in it
                first = next(inner, None)
                if first is None:
                    continue
                if matched:
                    yield below, entry.stat(follow_symlinks=False)
                yield first
            elif matched:
                yield below, entry.stat(follow_symlinks=False)
            yield from inner


def digest(tree: Tree, found: list[Found], exclude: Patterns, hasher: Hasher) -> tuple[str, str]:
    """(a hash of all that these sources would copy, a hash of what stat(2) says of it). Raises OSError, BadInput.

    The second one is cheap, and tells whether something was changed while it was copied.
    """
    whole, signs = hashlib.sha256(), hashlib.sha256()
    for each in found:
        whole.update(b"%d\n" % stat.S_ISDIR(each.looks.st_mode))  # a folder's own name and looks are not copied
        if not stat.S_ISDIR(each.looks.st_mode):
            whole.update(_line(tree, each.name, each.path, each.looks, hasher))
            signs.update(_signs(each.looks))
            continue
        for below, looks in tree.walk(each.path, exclude):
            whole.update(_line(tree, below, f"{each.path}/{below}".lstrip("/"), looks, hasher))
            signs.update(_signs(looks))
    return whole.hexdigest(), signs.hexdigest()


def _signs(looks: os.stat_result) -> bytes:
    return b"%d %d %d\n" % (looks.st_ino, looks.st_size, looks.st_ctime_ns)


def _line(tree: Tree, name: str, path: str, looks: os.stat_result, hasher: Hasher) -> bytes:
    place = f"{tree.root}/{path}"
    content: object = None
    mode = looks.st_mode
    if stat.S_ISREG(mode):
        content = [hasher(place, looks), looks.st_nlink > 1]
    elif stat.S_ISLNK(mode):
        content, mode = os.readlink(place), stat.S_IFLNK
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        content = looks.st_rdev
    return json.dumps([name, mode, content, attributes(place)]).encode() + b"\n"


def attributes(place: str) -> dict[str, str]:
    """The extended attributes that are copied, as text."""
    names = os.listxattr(place, follow_symlinks=False)
    if not names:
        return {}
    from labkit.image.extract import taken  # costs 3 ms, and files of a checkout have none

    return {key: os.getxattr(place, key, follow_symlinks=False).hex() for key in sorted(names) if taken(key)}


def open_context(folder: Path, dockerfile: Path) -> Tree:
    """The context, with the rules of DOCKERFILE.dockerignore or .dockerignore. Raises NotFound, BadInput."""
    if not folder.is_dir():
        raise NotFound(f"the context {folder} is no folder", next="labkit build FOLDER", status=1)
    for place in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), folder / ".dockerignore"):
        try:
            text = place.read_text(errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            return Tree(folder, Patterns.of_file(text))
        except BadInput as error:
            raise BadInput(f"{place}: {error.what}", why=error.why, next=error.next, status=1) from error
    return Tree(folder)
