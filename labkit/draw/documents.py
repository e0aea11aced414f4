"""Drawing floor: an image's documents and blobs, each named by the one before it.

Owns: the way from the tag to the bytes, from left to right: the index, the manifests that it lists,
and what the chosen manifest points to.  Each box has its digest, and says whether its bytes hash to it.

Read: the OCI image specification, "Understanding the Specification" and descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.svg import (
    BLUE,
    DEEP_BLUE,
    DEEP_GREEN,
    DEEP_RED,
    FAINT,
    GREEN,
    GREY,
    PAPER,
    RED,
    Canvas,
    Picture,
)
from labkit.draw.words import clean

ROWS = 20  # boxes below each other
TOP, HIGH, STEP, GAP = 14, 46, 58, 34  # pixels
PLACES = ((12, 112), (158, 182), (374, 200), (608, 200))  # of the columns: left edge, width
DIGITS = 12  # of a digest

# state: (area, edge, dashed, words)
STATES = {
    True: (GREEN, DEEP_GREEN, False, "fits its bytes"),
    False: (RED, DEEP_RED, False, "is not its bytes'"),
    None: (PAPER, FAINT, True, "not fetched"),
}


class Node(NamedTuple):
    """A document or a blob; `fits`: whether its bytes hash to its digest, None when it was not fetched."""

    name: str
    digest: str
    fits: bool | None = None


def descent(tag: str, index: Node, manifests: Sequence[Node], parts: Sequence[Node]) -> Picture:
    """From the tag down; `parts` belong to the first of the manifests."""
    columns = [[index], list(manifests[:ROWS]), list(parts[:ROWS])]
    notes = [f"and {len(more) - ROWS} more, not drawn" for more in (manifests, parts) if len(more) > ROWS]
    rows = max(len(column) for column in columns)
    canvas = Canvas(820, TOP + STEP * rows + 20 * len(notes) + 4, "the documents of an image")
    left, width = PLACES[0]
    canvas.box(left, TOP, width, HIGH, BLUE, DEEP_BLUE, title=tag)
    canvas.label(left + 8, TOP + 19, tag, width - 16, 12, bold=True)
    canvas.label(left + 8, TOP + 36, "a word", width - 16, 10.5, FAINT)
    for (x, wide), before, column in zip(PLACES[1:], PLACES[:-1], columns, strict=True):
        _wires(canvas, before[0] + before[1], x, len(column))
        for number, node in enumerate(column):
            _box(canvas, x, TOP + STEP * number, wide, node)
    for number, note in enumerate(notes):
        canvas.text(12, TOP + STEP * rows + 8 + 20 * number, note, 12, FAINT)
    return canvas.picture("\n".join([*_twin(tag, index, columns[1], columns[2]), *notes]))


def _wires(canvas: Canvas, start: float, end: float, count: int) -> None:
    """From the top box of one column to each box of the next."""
    if not count:
        return
    middle, first = (start + end) / 2, TOP + HIGH / 2
    canvas.line(start, first, middle, first)
    if count > 1:
        canvas.line(middle, first, middle, first + STEP * (count - 1))
    for number in range(count):
        canvas.line(middle, first + STEP * number, end, first + STEP * number, arrow=True)


def _box(canvas: Canvas, x: float, top: float, width: float, node: Node) -> None:
    fill, edge, dashed, words = STATES[node.fits]
    canvas.box(x, top, width, HIGH, fill if node.fits is not None else GREY, edge, dashed, title=node.digest)
    canvas.label(x + 8, top + 19, node.name, width - 16, 12, bold=True)
    canvas.label(x + 8, top + 36, _short(node), 86, 10.5, mono=True)
    canvas.label(x + width - 8, top + 36, words, width - 108, 10.5, edge, anchor="end")


def _short(node: Node) -> str:
    return clean(node.digest.removeprefix("sha256:")[:DIGITS])


def _twin(tag: str, index: Node, manifests: Sequence[Node], parts: Sequence[Node]) -> list[str]:
    def line(depth: int, node: Node) -> str:
        return f"{'    ' * depth}{clean(node.name)}  {_short(node)}  {STATES[node.fits][3]}"

    lines = [clean(tag), line(1, index)]
    for number, manifest in enumerate(manifests):
        lines += [line(2, manifest), *(line(3, part) for part in (parts if number == 0 else []))]
    return lines
