"""Drawing floor: which bytes images share: a row for each blob, a column for each image.

Owns: the order of the rows (documents first, layers from the bottom up), what is drawn once
and what is only pointed to again, and the two sums: with a copy for each image, and as a store
keeps them.

Read: the OCI image specification, descriptor and image-layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.svg import (
    BLUE,
    DEEP_BLUE,
    DEEP_GREEN,
    FAINT,
    GREEN,
    GREY,
    Canvas,
    Picture,
    size,
    table,
)
from labkit.draw.words import clean

ROWS, COLUMNS = 30, 6  # blobs and images that are drawn
LEFT, NAMES, ROW, HEAD, END = 12, 232, 34, 44, 808  # pixels
GAP, WIDEST = 8, 190
DIGITS = 12  # of a digest


class Blob(NamedTuple):
    """One blob; `size` in bytes, 0 where it is not to be told."""

    kind: str  # layer, or a document: manifest, configuration, index
    digest: str
    size: int = 0


class Held(NamedTuple):
    """An image and the blobs it is made of, its layers bottom first."""

    name: str
    blobs: tuple[Blob, ...]


def shared(images: Sequence[Held]) -> Picture:
    """Each blob once, and which of the images point to it."""
    blobs = sorted(dict.fromkeys(blob for image in images for blob in image.blobs), key=lambda blob: _is_layer(blob))
    shown, columns = blobs[:ROWS], images[:COLUMNS]
    notes = [*_left_out(blobs, images), _sums(images)]
    column = min((END - LEFT - NAMES) / max(len(columns), 1), WIDEST)
    height = HEAD + ROW * len(shown) + 20 * len(notes) + 14
    canvas = Canvas(END + LEFT, height, "which bytes images share")
    canvas.text(LEFT, 28, "blob, by its digest", 12, FAINT)
    rights = [LEFT + NAMES + column * number for number in range(len(columns))]
    for x, image in zip(rights, columns, strict=True):
        canvas.label(x, 28, image.name, column - GAP, 12.5, bold=True)
    for number, blob in enumerate(shown):
        top = HEAD + ROW * number
        canvas.label(LEFT, top + 19, blob.kind, 96, 12)
        canvas.label(LEFT + 100, top + 19, _short(blob), NAMES - 112, 11.5, mono=True, title=blob.digest)
        having = [image for image in images if blob in image.blobs]
        for x, image in zip(rights, columns, strict=True):
            if image in having:
                fill, edge = (GREY, FAINT) if len(having) == 1 else (GREEN, DEEP_GREEN)
                if image is not having[0]:
                    fill, edge = BLUE, DEEP_BLUE
                canvas.box(x, top, column - GAP, ROW - 6, fill, edge, dashed=image is not having[0])
                canvas.label(x + 8, top + 18.5, _word(blob, image, having), column - GAP - 16, 11.5)
    for number, note in enumerate(notes):
        canvas.label(LEFT, HEAD + ROW * len(shown) + 18 + 20 * number, note, END - LEFT, 12, FAINT)
    return canvas.picture("\n".join([_twin(shown, images), *map(clean, notes)]))


def _is_layer(blob: Blob) -> bool:
    return blob.kind == "layer"


def _short(blob: Blob) -> str:
    return clean(blob.digest.removeprefix("sha256:")[:DIGITS])


def _word(blob: Blob, image: Held, having: Sequence[Held]) -> str:
    """What stands in a cell: the bytes where they first appear, else that they are these."""
    if image is not having[0]:
        return "the same bytes"
    return size(blob.size) if blob.size else "its own" if len(having) == 1 else "a document"


def _left_out(blobs: Sequence[Blob], images: Sequence[Held]) -> list[str]:
    more = {"blobs": len(blobs) - ROWS, "images": len(images) - COLUMNS}
    return [f"and {count} more {what}, not drawn" for what, count in more.items() if count > 0]


def _sums(images: Sequence[Held]) -> str:
    """The layers' bytes with a copy for each image, and with each blob once."""
    layers = [blob for image in images for blob in image.blobs if _is_layer(blob)]
    each, once = sum(blob.size for blob in layers), sum(blob.size for blob in set(layers))
    return f"layers with a copy for each image: {size(each)}; in a store, each once: {size(once)}"


def _twin(shown: Sequence[Blob], images: Sequence[Held]) -> str:
    rows = [("blob", "digest", *(clean(image.name) for image in images))]
    for blob in shown:
        having = [image for image in images if blob in image.blobs]
        cells = (_word(blob, image, having) if image in having else "-" for image in images)
        rows.append((clean(blob.kind), _short(blob), *cells))
    return table(rows)
