"""Reading floor: what each layer of an overlay holds, as its own folder on disk shows it.

Owns: the files of every layer, and the signs that overlayfs leaves in them: whiteouts,
opaque folders, redirects, copies of metadata alone.  What the merged view makes of them is
for labkit/draw/merge.py to work out, and for the kernel to confirm.

Read: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories",
"redirect_dir", "Metadata only copy up".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from labkit.observe.mountinfo import Layers

# trusted.* is seen with CAP_SYS_ADMIN alone; the other is what `-o userxattr` uses.
PREFIXES = ("trusted.overlay.", "user.overlay.")


class File(NamedTuple):
    """One name in one layer."""

    path: str  # below the layer's folder, without a leading slash
    kind: str  # file, folder, link, whiteout, or other (a device, socket, pipe)
    size: int = 0  # bytes of a file; 0 otherwise
    opaque: bool = False  # a folder that hides what lies below it
    redirect: str = ""  # where the lower layers have what goes with this: a name beside it, or /from/the/root
    metadata_only: bool = False  # owner and mode are here, the data lies below


class Layer(NamedTuple):
    """One folder of the stack."""

    name: str
    files: tuple[File, ...]  # by path
    writable: bool = False


class Stack(NamedTuple):
    """An overlay, the bottom layer first, as images list them."""

    layers: tuple[Layer, ...]


def read(lower: Sequence[Path | str], upper: Path | str | None = None, names: Sequence[str] = ()) -> Stack:
    """The layers in these folders, the bottom first; `names` for them, else layer 1, layer 2, ..., upper.

    Without CAP_SYS_ADMIN the signs in trusted.* cannot be seen, and are not reported.
    Raises OSError for a folder that is not there.
    """
    folders = [*lower, *([upper] if upper is not None else [])]
    usual = [f"layer {number}" for number in range(1, len(lower) + 1)] + ["upper"]
    called = [*names, *usual[len(names) :]]
    return Stack(tuple(Layer(called[number], tuple(sorted(_files(Path(folder)))), number >= len(lower))
                       for number, folder in enumerate(folders)))  # fmt: skip


def of(layers: Layers) -> Stack:
    """The layers of a mounted overlay, as labkit.observe.mountinfo.layers tells them."""
    return read(layers.lower, layers.upper)


def _files(folder: Path) -> Iterator[File]:
    work = [(os.fspath(folder), "", _signs(os.fspath(folder)))]
    while work:
        place, above, signs = work.pop()
        # Only a folder that says so may hold whiteouts that are plain files (Linux 6.7).
        marked = signs.get("opaque") == b"x"
        for entry in os.scandir(place):
            path = f"{above}/{entry.name}" if above else entry.name
            try:
                about, own = entry.stat(follow_symlinks=False), _signs(entry.path)
            except FileNotFoundError:  # it went while we looked
                continue
            yield _file(path, about, own, marked)
            if stat.S_ISDIR(about.st_mode):
                work.append((entry.path, path, own))


def _file(path: str, about: os.stat_result, signs: dict[str, bytes], marked: bool) -> File:
    redirect = os.fsdecode(signs.get("redirect", b""))
    if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
        return File(path, "whiteout")
    if stat.S_ISDIR(about.st_mode):
        return File(path, "folder", opaque=signs.get("opaque") == b"y", redirect=redirect)
    if stat.S_ISLNK(about.st_mode):
        return File(path, "link")
    if not stat.S_ISREG(about.st_mode):
        return File(path, "other")
    if marked and about.st_size == 0 and "whiteout" in signs:
        return File(path, "whiteout")
    return File(path, "file", about.st_size, redirect=redirect, metadata_only="metacopy" in signs)


def _signs(path: str) -> dict[str, bytes]:
    """{opaque, redirect, ...: value}: the attributes of one file that overlayfs made."""
    found = {}
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            for prefix in PREFIXES:
                if name.startswith(prefix):
                    found[name.removeprefix(prefix)] = os.getxattr(path, name, follow_symlinks=False)
    except OSError:  # a file system without attributes, or the file went
        return found
    return found
