"""Drawing floor: a root file system as a stack of layers.

Owns: the stack, the writable layer on top, as the container looks down on it.

Read: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.svg import BLUE, DEEP_BLUE, DEEP_ORANGE, FAINT, ORANGE, Canvas, Picture, fit, size, table

HEIGHT, GAP, WIDTH = 52, 8, 560  # pixels


class Slab(NamedTuple):
    """One layer in the picture."""

    name: str
    bytes: int
    files: int
    writable: bool
    note: str = ""  # which step of the image made it


def stack(slabs: Sequence[Slab]) -> Picture:
    """slabs -- the bottom first, as images list them."""
    canvas = Canvas(WIDTH + 40, 40 + len(slabs) * (HEIGHT + GAP) + 12, "layers of a root file system")
    canvas.text(20, 26, "what the container sees as /  (it looks from above)", 12, FAINT)
    rows = [("layer", "files", "size", "writes", "made by")]
    for number, slab in enumerate(reversed(slabs)):
        top = 40 + number * (HEIGHT + GAP)
        edge = DEEP_ORANGE if slab.writable else DEEP_BLUE
        canvas.box(20, top, WIDTH, HEIGHT, ORANGE if slab.writable else BLUE, edge, dashed=slab.writable)
        canvas.text(34, top + 22, fit(slab.name, 300, 13), 13, bold=True)
        canvas.text(34, top + 40, fit(slab.note, 500, 11), 11, FAINT)
        how = "takes every write" if slab.writable else "read only"
        canvas.text(20 + WIDTH - 14, top + 22, f"{slab.files} files, {size(slab.bytes)}", 12, anchor="end")
        canvas.text(20 + WIDTH - 14, top + 40, how, 11, edge, anchor="end")
        rows.append((slab.name, str(slab.files), size(slab.bytes), "here" if slab.writable else "never", slab.note))
    return canvas.picture(table(rows))
