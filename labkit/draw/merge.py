"""Drawing floor: what an overlay's merged view shows, worked out from its layers.

Owns: the look from above through the layers, name by name: the first that has the name
decides; folders are merged until one is opaque; redirects and copies of metadata point
further down.  The kernel does the same, and a test compares the two.

Read: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.observe.stack import File, Stack


class Seen(NamedTuple):
    """One name in the merged view; layers are counted from the bottom, 0 first."""

    kind: str
    size: int
    sources: tuple[tuple[int, str], ...]  # (layer, path there), the top first; of a file, the first alone
    data: tuple[int, str] | None = None  # where the bytes lie, if not with the name


class Merged(NamedTuple):
    """The merged view, and who hides what."""

    seen: dict[str, Seen]
    hidden: dict[tuple[int, str], int]  # {(layer, path): the layer that hides it}
    shown: dict[tuple[int, str], str]  # {(layer, path): as which path it is seen}


def merge(stack: Stack) -> Merged:
    """The whole view. Paths are as in the layers: without a leading slash."""
    indexes = [index(layer.files) for layer in stack.layers]
    names = [_names(index) for index in indexes]
    merged = Merged({}, {}, {})
    top_first = tuple((number, "") for number in reversed(range(len(indexes))))
    work = [("", top_first)]
    while work:
        place, folders = work.pop()
        for name in sorted({name for layer, path in folders for name in names[layer].get(path, ())}):
            path = _join(place, name)
            seen, stopped = _look(name, folders, indexes)
            _hide(merged, name, folders, stopped, indexes)
            if seen is None:
                continue
            merged.seen[path] = seen
            merged.shown.update(dict.fromkeys(seen.sources, path))
            if seen.data:
                merged.shown.setdefault(seen.data, path)
            if seen.kind == "folder":
                work.append((path, seen.sources))
    _hide_below(merged, indexes)
    return merged


def index(files: Sequence[File]) -> dict[str, File]:
    """{path: file}, with the folders on the way to each file, whether they were listed or not."""
    found: dict[str, File] = {}
    for file in files:
        parts = [part for part in file.path.split("/") if part]
        for end in range(1, len(parts)):
            found.setdefault("/".join(parts[:end]), File("/".join(parts[:end]), "folder"))
        if parts:
            found["/".join(parts)] = file._replace(path="/".join(parts))
    return found


def _names(files: dict[str, File]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in files:
        above, _, name = path.rpartition("/")
        found.setdefault(above, set()).add(name)
    return found


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def _look(name: str, folders: Sequence[tuple[int, str]],
          indexes: Sequence[dict[str, File]]) -> tuple[Seen | None, int | None]:  # fmt: skip
    """What is seen under `name`, and the layer at which the look down ends (None: at the bottom)."""
    sources: list[tuple[int, str]] = []
    first: File | None = None
    way = [(layer, _join(folder, name)) for layer, folder in folders]
    above = folders
    while way:
        (layer, path), *way = way
        above = above[1:]
        file = indexes[layer].get(path)
        if file is None:
            continue
        if file.kind == "whiteout":
            break
        if first is None:
            first = file
        elif first.kind != "folder" and file.kind == "file":  # the data of a copy of metadata
            if not file.metadata_only:
                return Seen(first.kind, first.size or file.size, tuple(sources), (layer, path)), sources[0][0]
        elif file.kind != first.kind:
            layer = sources[-1][0]  # a file under a folder, or a folder under a file, counts for nothing
            break
        if not sources or file.kind == "folder":
            sources.append((layer, path))
        if file.opaque or (file.kind != "folder" and not file.metadata_only):
            break
        if file.redirect.startswith("/"):  # from the root of every layer below
            above = tuple((number, "") for number in reversed(range(layer)))
            way = [(number, file.redirect.strip("/")) for number, _ in above]
        elif file.redirect:
            way = [(number, _join(folder, file.redirect)) for number, folder in above]
    else:
        return (Seen(first.kind, first.size, tuple(sources)) if first else None), None
    return (Seen(first.kind, first.size, tuple(sources)) if first else None), layer


def _hide(merged: Merged, name: str, folders: Sequence[tuple[int, str]], stopped: int | None,
          indexes: Sequence[dict[str, File]]) -> None:  # fmt: skip
    """What of that name lies below the layer at which the look ended."""
    for layer, folder in folders:
        path = _join(folder, name)
        if stopped is not None and layer < stopped and path in indexes[layer]:
            merged.hidden.setdefault((layer, path), stopped)


def _hide_below(merged: Merged, indexes: Sequence[dict[str, File]]) -> None:
    """Whatever is shown nowhere is hidden by what hides its folder."""
    for layer, files in enumerate(indexes):
        for path in sorted(files):
            if (layer, path) in merged.shown:
                merged.hidden.pop((layer, path), None)
                continue
            above = path
            while above and (layer, above) not in merged.hidden:
                above = above.rpartition("/")[0]
            if above:
                merged.hidden.setdefault((layer, path), merged.hidden[layer, above])
            elif files[path].kind != "whiteout":
                folder = path.rpartition("/")[0]
                merged.hidden[layer, path] = _roof(layer, folder, indexes)


def _roof(layer: int, folder: str, indexes: Sequence[dict[str, File]]) -> int:
    """The layer that keeps a folder's content from being seen: the lowest one above that ends the look there."""
    while True:
        for number in range(layer + 1, len(indexes)):
            file = indexes[number].get(folder)
            if file is not None and (file.opaque or file.kind != "folder"):
                return number
        if not folder:
            return layer
        folder = folder.rpartition("/")[0]
