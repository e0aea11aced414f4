"""Drawing floor: what the doctor found, as a map of tiles and as text.

Owns: the matplotlib figure (what it shows differs from machine to machine, so it is a
figure and not compared) and its text twin (what must be the same on each fit machine).

Read: labkit/lab/doctor.py for what is tried.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labkit.draw.svg import DEEP_GREEN, DEEP_ORANGE, DEEP_RED, GREEN, INK, ORANGE, RED, table
from labkit.draw.words import ELLIPSIS, cut, width

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Chart:
    """A matplotlib figure that shows itself as PNG: without pyplot, notebooks do not know how."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        return "a map of what the doctor found"


# state: (area, edge, the word that says the same as the colour)
LOOK = {
    "ok": (GREEN, DEEP_GREEN, "ok"),
    "limited": (ORANGE, DEEP_ORANGE, "limited"),
    "missing": (RED, DEEP_RED, "missing"),
}
COLUMNS, LINES = 4, 5  # tiles a row; lines of what was found in each, at most
# Inches, at 96 pixels each: a cell is about 9 wide, and nothing is shrunk there.
WIDE, EDGE, GAP, HEAD, TOP, LINE = 9.0, 0.1, 0.09, 0.36, 0.33, 0.145
STEP = (WIDE - 2 * EDGE + GAP) / COLUMNS  # from tile to tile
LARGE, SMALL, PIXELS = 9.0, 8.0, 96 / 72  # points of the letters; pixels a point


def tiles(findings: Sequence[Mapping[str, str]]) -> Chart:
    """A tile for each finding, group by group: its title, what was found, and its state as a word."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    groups: dict[str, list[Mapping[str, str]]] = {}
    for finding in findings:
        groups.setdefault(finding["group"], []).append(finding)
    rows = {
        group: [found[at : at + COLUMNS] for at in range(0, len(found), COLUMNS)] for group, found in groups.items()
    }
    height = sum(HEAD + sum(_height(row) + GAP for row in found) for found in rows.values()) + EDGE
    figure = Figure(figsize=(WIDE, height), dpi=96, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDE)
    axes.set_ylim(height, 0)
    axes.axis("off")
    top = 0.0
    for group, found in rows.items():
        axes.text(EDGE, top + 0.26, group, fontsize=10.5, fontweight="bold", color=INK)
        top += HEAD
        for row in found:
            for number, finding in enumerate(row):
                left, right = EDGE + number * STEP, EDGE + (number + 1) * STEP - GAP
                area, edge, word = LOOK[finding["state"]]
                corners = "round,pad=0,rounding_size=0.06"
                axes.add_patch(FancyBboxPatch((left, top), right - left, _height(row), boxstyle=corners,
                                              facecolor=area, edgecolor=edge, linewidth=0.8))  # fmt: skip
                axes.text(left + 0.08, top + 0.2, finding["title"], fontsize=LARGE, color=INK, fontweight="bold")
                axes.text(right - 0.08, top + 0.2, word, fontsize=SMALL, color=edge, ha="right")
                for place, line in enumerate(lines(finding["found"]), 1):
                    axes.text(left + 0.08, top + 0.25 + LINE * place, line, fontsize=SMALL, color=INK, parse_math=False)
            top += _height(row) + GAP
    return Chart(figure)


def _height(row: Sequence[Mapping[str, str]]) -> float:
    """Of a row of tiles: as many lines as its longest text needs."""
    return TOP + LINE * max(len(lines(finding["found"])) for finding in row)


def lines(words: str) -> list[str]:
    """What was found as lines that fit into a tile; an ellipsis where that is not all."""
    room, size = (STEP - GAP - 0.16) * 96, SMALL * PIXELS
    found = [""]
    for word in words.split():
        longer = f"{found[-1]} {word}".strip()
        if width(longer, size) <= room:
            found[-1] = longer
        else:
            found.append(cut(word, room, size))
    found = [line for line in found if line]
    return found if len(found) <= LINES else [*found[: LINES - 1], cut(f"{found[LINES - 1]} {ELLIPSIS}", room, size)]


def essentials(findings: Sequence[Mapping[str, object]]) -> str:
    """What every machine that is fit for the course has, one line each."""
    needed = [finding for finding in findings if finding["essential"]]
    rows = [(str(one["group"]), str(one["title"]), str(one["state"])) for one in needed]
    return table([("the course needs", "", ""), *rows])
