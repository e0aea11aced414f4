"""Drawing floor: the matplotlib painter: a canvas's shapes as a figure.

Owns: the same picture for whoever wants a PDF, a PNG or axes to draw on.  A pixel of the
canvas is 1/96 inch, as in CSS.

Read: the matplotlib documentation, "Figure", "Text properties" and "FancyBboxPatch".
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.draw.svg import PAPER, Box, Canvas, Line, Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 96
POINT = 72 / DPI  # points a pixel
ALIGN = {"start": "left", "middle": "center", "end": "right"}
NARROWER = 0.96  # of the letters' size: hinted to whole pixels they become up to so much wider than they measure
UNKNOWN = "\ufffd"  # for a letter that the font lacks: matplotlib would warn and draw an empty box


def paint(canvas: Canvas) -> Figure:
    """A new figure, which belongs to no window and no pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(canvas.width / DPI, canvas.height / DPI), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, canvas.width)
    axes.set_ylim(canvas.height, 0)
    axes.axis("off")
    for order, shape in enumerate(canvas.shapes):
        # matplotlib would paint every text over every line otherwise, whatever came last.
        match shape:
            case Box():
                _box(axes, shape, order)
            case Text() if shape.words:
                _text(axes, shape, order)
            case Line():
                _line(axes, shape, order)
    return figure


def _box(axes: Axes, box: Box, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = min(6.0, box.width / 2, box.height / 2)
    axes.add_patch(
        FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle=f"round,pad=0,rounding_size={corner:g}",
                       facecolor=box.fill, edgecolor=box.edge, linewidth=POINT, zorder=order,
                       linestyle=(0, (5, 4)) if box.dashed else "-")
    )  # fmt: skip


def _text(axes: Axes, text: Text, order: int) -> None:
    name = "DejaVuSansMono" if text.mono else "DejaVuSans"
    known = _letters(f"{name}-Bold.ttf" if text.bold else f"{name}.ttf")
    words = "".join(letter if ord(letter) in known else UNKNOWN for letter in text.words)
    axes.text(text.x, text.y, words, fontsize=text.size * POINT * NARROWER, color=text.colour, ha=ALIGN[text.anchor],
              va="baseline", fontweight="bold" if text.bold else "normal", zorder=order, clip_on=False,
              fontfamily="DejaVu Sans Mono" if text.mono else "DejaVu Sans", parse_math=False)  # fmt: skip


def _line(axes: Axes, line: Line, order: int) -> None:
    if line.arrow:
        style = {"arrowstyle": "-|>,head_width=0.25,head_length=0.45", "color": line.colour,
                 "linewidth": line.width * POINT, "shrinkA": 0, "shrinkB": 0}  # fmt: skip
        axes.annotate("", (line.x2, line.y2), (line.x1, line.y1), arrowprops=style, zorder=order)
    else:
        axes.plot([line.x1, line.x2], [line.y1, line.y2], color=line.colour, linewidth=line.width * POINT,
                  solid_capstyle="butt", zorder=order)  # fmt: skip


@cache
def _letters(font: str) -> frozenset[int]:
    """The letters that one of matplotlib's own fonts has."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(get_data_path()) / "fonts" / "ttf" / font)).get_charmap())
