"""Drawing floor: the steps of a build, while it goes on or when it is done.

Owns: a row for each instruction: whether it waits, runs, was done, or came from the cache, and the
layer that it made.  Stages stand one below the other, each under its name.

Read: Docker's documentation, "Building best practices" on the build cache; docker-history(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.svg import (
    BLUE,
    DEEP_BLUE,
    DEEP_GREEN,
    DEEP_ORANGE,
    DEEP_RED,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    PAPER,
    RED,
    Canvas,
    Picture,
    size,
    table,
)
from labkit.draw.words import clean

ROWS = 36  # steps that are drawn
LEFT, WIDTH, STATE, ROW, HEAD = 12, 796, 150, 34, 44  # pixels
LAYER = 190  # of the last column

# state: (area, edge, dashed, words)
STATES = {
    "waits": (PAPER, FAINT, True, "waits"),
    "runs": (ORANGE, DEEP_ORANGE, True, "runs now"),
    "done": (GREEN, DEEP_GREEN, False, "done now"),
    "cached": (BLUE, DEEP_BLUE, False, "from the cache"),
    "setting": (GREY, FAINT, False, "a setting"),
    "failed": (RED, DEEP_RED, False, "failed"),
}


class Step(NamedTuple):
    """One instruction; `size` is its layer's, in bytes as it travels, None where it made none."""

    text: str
    state: str  # a key of STATES
    size: int | None = None
    stage: str = ""


def build(steps: Sequence[Step]) -> Picture:
    """The instructions in their order, and what became of each."""
    shown = steps[:ROWS]
    several = len({step.stage for step in steps}) > 1
    notes = [f"and {len(steps) - ROWS} more steps, not drawn"] if len(steps) > ROWS else []
    height = HEAD + ROW * max(len(shown), 1) + 20 * len(notes) + 10
    canvas = Canvas(LEFT + WIDTH + LEFT, height, "steps of a build")
    canvas.text(LEFT, 28, "state", 12, FAINT)
    canvas.text(LEFT + STATE, 28, "instruction", 12, FAINT)
    canvas.text(LEFT + WIDTH, 28, "layer that it made", 12, FAINT, anchor="end")
    if not shown:
        canvas.text(LEFT + STATE, HEAD + 20, "no step", 12, FAINT)
    for number, step in enumerate(shown):
        top = HEAD + ROW * number
        fill, edge, dashed, words = STATES[step.state]
        canvas.box(LEFT, top, STATE - 12, ROW - 6, fill, edge, dashed)
        canvas.label(LEFT + 8, top + 18.5, words, STATE - 28, 12)
        text = f"[{step.stage}] {step.text}" if several else step.text
        canvas.label(LEFT + STATE, top + 18.5, text, WIDTH - STATE - LAYER, 12, mono=True)
        canvas.label(LEFT + WIDTH, top + 18.5, _layer(step), LAYER - 12, 12, FAINT, anchor="end")
    for note in notes:
        canvas.text(LEFT, HEAD + ROW * len(shown) + 16, note, 12, FAINT)
    return canvas.picture("\n".join([_twin(shown, several), *notes]))


def _layer(step: Step) -> str:
    if step.size is not None:
        return size(step.size)
    return "" if step.state in ("waits", "runs", "failed") else "none"


def _twin(shown: Sequence[Step], several: bool) -> str:
    rows = [("state", "instruction", "layer")]
    for step in shown:
        text = f"[{step.stage}] {step.text}" if several else step.text
        rows.append((STATES[step.state][3], clean(text), _layer(step) or "-"))
    return table(rows) if shown else "no step"
