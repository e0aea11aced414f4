"""Drawing floor: an overlay's stack with the origin of every file.

Owns: a row for each path, a column for the merged view and one for each layer, the top
layer first: the eye goes from left to right as the kernel looks from above.  Whiteouts,
opaque folders, redirects and what is hidden by what stand in words.

Read: Documentation/filesystems/overlayfs.rst; labkit/draw/merge.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.merge import Merged, Seen, index, merge
from labkit.draw.svg import (
    BLUE,
    DEEP_BLUE,
    DEEP_GREEN,
    DEEP_ORANGE,
    DEEP_RED,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAPER,
    RED,
    Canvas,
    Picture,
    size,
    table,
)
from labkit.draw.words import clean, width
from labkit.observe.stack import File, Stack

ROWS, COLUMNS = 36, 4  # paths; layers, of which more are one column together
LEFT, PATHS, VIEW, ROW, HEAD, END = 12, 190, 168, 40, 66, 808  # pixels
GAP, WIDEST, NARROW = 8, 150, 60


class Cell(NamedTuple):
    """What stands in one cell, and how."""

    word: str
    below: str
    look: str  # a key of LOOK


# look: (area, edge, dashed, colour of the words, bold)
LOOK = {
    "shown": (GREEN, DEEP_GREEN, False, INK, True),
    "folder": (BLUE, DEEP_BLUE, False, INK, False),
    "hidden": (PAPER, FAINT, True, FAINT, False),
    "whiteout": (RED, DEEP_RED, False, DEEP_RED, True),
    "opaque": (ORANGE, DEEP_ORANGE, False, INK, True),
    "gone": (PAPER, DEEP_RED, True, DEEP_RED, False),
    "rest": (GREY, FAINT, False, INK, False),
}


def origins(stack: Stack) -> Picture:
    """What the merged view shows, where each file in it comes from, and what hides what."""
    merged = merge(stack)
    indexes = [index(layer.files) for layer in stack.layers]
    paths = sorted({path for files in indexes for path in files} | set(merged.seen), key=_by_parts)
    shown = _choose(paths, merged, indexes)
    order = list(reversed(range(len(stack.layers))))
    alone = order if len(order) <= COLUMNS + 1 else order[:COLUMNS]
    rest = order[len(alone) :]
    count = len(alone) + bool(rest)
    room = _room(shown) if count > 3 else PATHS
    column = min((END - LEFT - room - VIEW) / max(count, 1), WIDEST)
    notes = [f"and {len(paths) - len(shown)} more paths, not drawn"] if len(shown) < len(paths) else []
    height = HEAD + ROW * max(len(shown), 1) + 20 * len(notes) + 10
    canvas = Canvas(END + LEFT, height, "origin of every file in an overlay")
    advice = "From left to right as the kernel looks from above: the first layer that has the name decides."
    canvas.text(LEFT, 20, advice, 11.5, FAINT)
    canvas.text(LEFT, 50, "path", 12, FAINT)
    canvas.text(LEFT + room, 44, "merged view", 12.5, bold=True)
    canvas.text(LEFT + room, 58, "what a process sees", 10.5, FAINT)
    rights = [LEFT + room + VIEW + column * number for number in range(count)]
    for x, number in zip(rights, alone, strict=False):
        about = stack.layers[number]
        words = "takes every write" if about.writable else "the bottom" if number == 0 else "read only"
        canvas.label(x, 44, about.name, column - GAP, 12.5, bold=True)
        canvas.label(x, 58, words, column - GAP, 10.5, DEEP_ORANGE if about.writable else FAINT)
    if rest:
        canvas.label(rights[-1], 44, f"{len(rest)} more below", column - GAP, 12.5, bold=True,
                     title=", ".join(stack.layers[number].name for number in rest))  # fmt: skip
        canvas.label(rights[-1], 58, "together", column - GAP, 10.5, FAINT)
    if not paths:
        canvas.text(LEFT + room, HEAD + 22, "no file in any layer", 12, FAINT)
    for number, path in enumerate(shown):
        top = HEAD + ROW * number
        folder = _is_folder(path, merged, indexes)
        canvas.label(LEFT, top + 20, path + ("/" if folder else ""), room - 12, 11.5, mono=True)
        _cell(canvas, LEFT + room, top, VIEW - 2 * GAP, _view(path, stack, merged, indexes))
        for x, layer in zip(rights, alone, strict=False):
            if path in indexes[layer]:
                _cell(canvas, x, top, column - GAP, _in_layer(layer, path, stack, merged, indexes))
        if rest and (cell := _together(path, rest, merged, indexes)):
            _cell(canvas, rights[-1], top, column - GAP, cell)
    for number, note in enumerate(notes):
        canvas.text(LEFT, HEAD + ROW * len(shown) + 16 + 20 * number, note, 11.5, FAINT)
    return canvas.picture("\n".join([_twin(shown, stack, merged, indexes), *notes]))


def _room(paths: Sequence[str]) -> float:
    """Where there are many layers: as much for the paths as they take, so that the columns have the rest."""
    longest = max((width(clean(f"{path}/"), 11.5, mono=True) for path in paths), default=0.0)
    return min(PATHS, max(longest + 20, NARROW))


def _is_folder(path: str, merged: Merged, indexes: Sequence[dict[str, File]]) -> bool:
    """Whether a path is a folder; one that is gone: whether it was."""
    if path in merged.seen:
        return merged.seen[path].kind == "folder"
    found = [files[path].kind for files in indexes if path in files and files[path].kind != "whiteout"]
    return found[-1:] == ["folder"]


def _by_parts(path: str) -> list[str]:
    return path.split("/")


def _choose(paths: Sequence[str], merged: Merged, indexes: Sequence[dict[str, File]]) -> list[str]:
    """As many paths as fit: those first at which layers meet, or at which one leaves a sign."""

    def plain(path: str) -> bool:
        found = [files[path] for files in indexes if path in files]
        told = len(found) > 1 and any(file.kind != "folder" for file in found)
        return not told and not any(
            file.kind == "whiteout" or file.opaque or file.redirect or file.metadata_only for file in found
        )

    return sorted(sorted(paths, key=lambda path: (plain(path), _by_parts(path)))[:ROWS], key=_by_parts)


def _cell(canvas: Canvas, x: float, top: float, wide: float, cell: Cell) -> None:
    fill, edge, dashed, colour, bold = LOOK[cell.look]
    canvas.box(x, top, wide, ROW - 6, fill, edge, dashed, title=f"{cell.word}, {cell.below}".strip(", "))
    one_line = 0 if cell.below else 6
    canvas.label(x + 6, top + 14.5 + one_line, cell.word, wide - 12, 11.5, colour, bold=bold)
    canvas.label(x + 6, top + 28, cell.below, wide - 12, 10.5, FAINT if cell.look == "hidden" else INK)


def _name(stack: Stack, layer: int) -> str:
    return clean(stack.layers[layer].name)


def _size(kind: str, count: int) -> str:
    return size(count) if kind == "file" else ""


def _view(path: str, stack: Stack, merged: Merged, indexes: Sequence[dict[str, File]]) -> Cell:
    """The cell of the merged view."""
    seen = merged.seen.get(path)
    if seen is None:
        return Cell("gone", _why(path, stack, merged, indexes), "gone")
    names = [_name(stack, layer) for layer, _ in seen.sources]
    if seen.kind == "folder":
        return Cell("folder" if len(names) == 1 else "folder, merged", f"of {', '.join(names)}", "folder")
    return Cell(f"from {names[0]}", _extent(seen, path, stack), "shown")


def _extent(seen: Seen, path: str, stack: Stack) -> str:
    """What the file is; before that, what the row and the column do not say: another name, other bytes."""
    if seen.data:
        return f"data in {_name(stack, seen.data[0])}"
    place = seen.sources[0][1]
    words = " ".join(part for part in (seen.kind, _size(seen.kind, seen.size)) if part)
    return f"{clean(place)}, {words}" if place != path else words


def _why(path: str, stack: Stack, merged: Merged, indexes: Sequence[dict[str, File]]) -> str:
    """Why a path that some layer has is not seen."""
    for layer in reversed(range(len(indexes))):
        for place in _ways(path):
            file = indexes[layer].get(place)
            if file and file.kind == "whiteout" and (layer, place) not in merged.hidden:
                return f"whiteout in {_name(stack, layer)}"
            if file and file.opaque and place != path:
                return f"opaque folder in {_name(stack, layer)}"
    moved = next((merged.shown[layer, path] for layer in range(len(indexes)) if (layer, path) in merged.shown), None)
    return f"seen as {clean(moved)}" if moved else "its folder is hidden"


def _ways(path: str) -> list[str]:
    """The path and the folders above it, the innermost first."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _in_layer(layer: int, path: str, stack: Stack, merged: Merged, indexes: Sequence[dict[str, File]]) -> Cell:
    """The cell of one layer that has the path."""
    file = indexes[layer][path]
    hider = merged.hidden.get((layer, path))
    as_path = merged.shown.get((layer, path))
    if hider is not None and as_path is None:
        return Cell(file.kind, f"hidden by {_name(stack, hider)}", "hidden")
    if file.kind == "whiteout":
        below = any(path in files for files in indexes[:layer])
        return Cell("whiteout", "deletes it below" if below else "nothing is below", "whiteout")
    if as_path is None:
        return Cell(file.kind, "not seen", "hidden")
    elsewhere = f"as {clean(as_path)}" if as_path != path else ""
    if file.kind == "folder":
        if file.opaque:
            return Cell("opaque folder", elsewhere or "hides what is below", "opaque")
        return Cell("folder", f"redirect {clean(file.redirect)}" if file.redirect else elsewhere, "folder")
    if file.metadata_only:
        return Cell(file.kind, "owner and mode only", "shown")
    return Cell(file.kind, elsewhere or _size(file.kind, file.size), "shown")


def _together(path: str, layers: Sequence[int], merged: Merged, indexes: Sequence[dict[str, File]]) -> Cell | None:
    """The cell of the layers that share a column."""
    having = [layer for layer in layers if path in indexes[layer]]
    if not having:
        return None
    seen = sum(1 for layer in having if (layer, path) in merged.shown)
    return Cell(f"in {len(having)} of {len(layers)}", "none of it is seen" if not seen else f"{seen} seen", "rest")


def _twin(shown: Sequence[str], stack: Stack, merged: Merged, indexes: Sequence[dict[str, File]]) -> str:
    order = list(reversed(range(len(stack.layers))))
    rows = [("path", "merged view", *(_name(stack, layer) for layer in order))]
    for path in shown:
        cells = [_view(path, stack, merged, indexes)]
        cells += [_in_layer(layer, path, stack, merged, indexes) if path in indexes[layer]
                  else Cell("-", "", "rest") for layer in order]  # fmt: skip
        rows.append((clean(path), *(f"{cell.word}{', ' if cell.below else ''}{cell.below}" for cell in cells)))
    return table(rows) if shown else "no file in any layer"
