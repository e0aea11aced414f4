"""Drawing floor: the few shapes of which every picture is made, and the pair of picture and text.

Owns: colours (told apart by colour-blind readers too, and never the only sign), a canvas
that collects shapes, and Picture, which a notebook shows as SVG and a terminal as text.

Read: the SVG 2 specification, "Basic Shapes" and "Text".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from labkit.draw.words import clean, cut

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# After Okabe and Ito's palette for colour-blind readers, lightened for areas.
INK, FAINT, PAPER = "#1b2733", "#6b7885", "#ffffff"
BLUE, GREEN, ORANGE, RED, GREY = "#cfe3f5", "#cdeadd", "#fbe3c3", "#f6cfc7", "#edf0f3"
VIOLET = "#e3d7f1"
DEEP_BLUE, DEEP_GREEN, DEEP_ORANGE, DEEP_RED = "#0b5e9e", "#00795a", "#a85f00", "#a83a1d"
DEEP_VIOLET, DEEP_YELLOW, DEEP_SKY = "#6a3d9a", "#7a6a00", "#00707f"

FONT = "font-family='ui-sans-serif, system-ui, sans-serif'"
MONO = "font-family='ui-monospace, monospace'"
WIDTH = 0.6  # of a letter, in parts of the font's size; wide enough for both fonts


class Box(NamedTuple):
    """A rectangle with round corners; `title` is what a pointer that rests on it shows."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    edge: str
    dashed: bool
    title: str

    def svg(self) -> str:
        """As an SVG element."""
        dash = " stroke-dasharray='5 4'" if self.dashed else ""
        return (f"<rect x='{self.x:g}' y='{self.y:g}' width='{self.width:g}' height='{self.height:g}' rx='6' "
                f"fill='{self.fill}' stroke='{self.edge}'{dash}>{_tip(self.title)}</rect>")  # fmt: skip


class Text(NamedTuple):
    """One line of text; y is its baseline."""

    x: float
    y: float
    words: str
    size: float
    colour: str
    anchor: str
    bold: bool
    mono: bool
    title: str

    def svg(self) -> str:
        """As an SVG element."""
        weight = " font-weight='600'" if self.bold else ""
        return (f"<text x='{self.x:g}' y='{self.y:g}' font-size='{self.size:g}' fill='{self.colour}' "
                f"text-anchor='{self.anchor}' {MONO if self.mono else FONT}{weight}>"
                f"{_tip(self.title)}{escape(self.words)}</text>")  # fmt: skip


class Line(NamedTuple):
    """A line, with an arrow head at its end if asked for."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str
    width: float
    arrow: bool

    def svg(self) -> str:
        """As an SVG element."""
        head = " marker-end='url(#head)'" if self.arrow else ""
        return (f"<line x1='{self.x1:g}' y1='{self.y1:g}' x2='{self.x2:g}' y2='{self.y2:g}' stroke='{self.colour}' "
                f"stroke-width='{self.width:g}'{head}/>")  # fmt: skip


def _tip(title: str) -> str:
    return f"<title>{escape(clean(title[:1000]))}</title>" if title else ""


class Picture:
    """A picture and its plain-text twin; notebooks show the first, terminals and tests the second."""

    def __init__(self, svg: str, text: str, canvas: Canvas | None = None) -> None:
        self.svg = svg
        self.text = text
        self._canvas = canvas

    def figure(self) -> Figure:
        """The same shapes as a matplotlib figure. Raises ValueError for a picture that has only its SVG."""
        from labkit.draw.figure import paint

        if self._canvas is None:
            raise ValueError("this picture was made from its SVG alone")
        return paint(self._canvas)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": self.text}

    def __str__(self) -> str:
        return self.text


class Canvas:
    """The shapes of one picture; lengths are in pixels from the top left."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, clean(title)
        self.shapes: list[Box | Text | Line] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str = GREY, edge: str = FAINT,
            dashed: bool = False, title: str = "") -> None:  # fmt: skip
        """A rectangle with round corners; `title` is what a pointer that rests on it shows."""
        self.shapes.append(Box(x, y, width, height, fill, edge, dashed, title))

    def text(self, x: float, y: float, words: str, size: float = 13, colour: str = INK, anchor: str = "start",
             bold: bool = False, mono: bool = False, title: str = "") -> None:  # fmt: skip
        """One line; y is its baseline."""
        self.shapes.append(Text(x, y, clean(words), size, colour, anchor, bold, mono, title))

    def label(self, x: float, y: float, words: str, room: float, size: float = 12, colour: str = INK,
              anchor: str = "start", bold: bool = False, mono: bool = False, title: str = "") -> None:  # fmt: skip
        """One line cut to `room` pixels; what was cut stands whole where a pointer rests on it."""
        if not words:
            return
        shown = cut(words, room, size, bold, mono)
        self.text(x, y, shown, size, colour, anchor, bold, mono, title or ("" if shown == clean(words) else words))

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = FAINT, width: float = 2,
             arrow: bool = False) -> None:  # fmt: skip
        """A line, with an arrow head at its end if asked for."""
        self.shapes.append(Line(x1, y1, x2, y2, colour, width, arrow))

    def svg(self) -> str:
        """The whole document, on white paper so that it can be read on a dark page too."""
        head = ("<defs><marker id='head' markerWidth='8' markerHeight='8' refX='6' refY='3' orient='auto'>"
                f"<path d='M0,0 L6,3 L0,6 z' fill='{FAINT}'/></marker></defs>")  # fmt: skip
        return "\n".join(
            [
                f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self.width:g} {self.height:g}' "
                f"width='{self.width:g}' role='img' aria-label={quoteattr(self.title)} "
                "style='max-width:100%;height:auto'>",
                f"<title>{escape(self.title)}</title>{head}",
                f"<rect width='{self.width:g}' height='{self.height:g}' fill='{PAPER}'/>",
                *(shape.svg() for shape in self.shapes),
                "</svg>",
            ]
        )

    def picture(self, text: str) -> Picture:
        """What has been drawn so far, with `text` as its twin."""
        return Picture(self.svg(), text, self)


def fit(words: str, width: float, size: float) -> str:
    """The words, shortened in the middle until they fit into `width` pixels."""
    room = int(width / (size * WIDTH))
    if len(words) <= room:
        return words
    keep = max(room - 1, 2)
    return f"{words[: keep // 2]}…{words[len(words) - (keep - keep // 2) :]}"


def size(count: int) -> str:
    """Bytes as people read them: 0 B, 1.2 kB, 34 MB."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns in line, two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
