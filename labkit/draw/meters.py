"""Drawing floor: live meters of one container: what it uses now, of how much, and how that went.

Owns: a row for each thing that is metered: its name, a bar up to its limit, the number, and the
course of the last samples as columns.

Read: docker-stats(1), whose columns these are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.svg import (
    DEEP_BLUE,
    DEEP_GREEN,
    DEEP_ORANGE,
    DEEP_RED,
    DEEP_VIOLET,
    FAINT,
    GREY,
    Canvas,
    Picture,
    size,
    table,
)
from labkit.observe.usage import Sample, Usage, between

LEFT, TOP, ROW, END = 16, 44, 46, 700  # pixels
BAR, BAR_WIDTH, NUMBER, COURSE = 96, 190, 300, 500  # where the columns begin, and the bar's width
FEWEST = 20  # samples for which the course has room at least
FULL = 0.9  # of a limit: from here on the bar is red


class Meter(NamedTuple):
    """One row: the course, oldest first, as parts of `whole`; a whole of 0 is no limit."""

    name: str
    course: tuple[float, ...]
    whole: float
    said: str
    colour: str


def picture(name: str, samples: Sequence[Sample], cpus: float | None = None) -> Picture:
    """The meters of a container from its samples, oldest first.

    cpus -- how many CPUs it may use, as cpu.limits(group).cpus has it; None is no limit.
    """
    steps = [between(*pair) for pair in itertools.pairwise(samples)] or [between(samples[-1], samples[-1])]
    rows = meters(steps, cpus)
    canvas = Canvas(END + LEFT, TOP + len(rows) * ROW + 14, f"what {name} uses")
    canvas.label(LEFT, 26, name, 420, 15, bold=True)
    canvas.text(END, 26, f"the last {sum(step.seconds for step in steps):.0f} s", 12, FAINT, anchor="end")
    for number, meter in enumerate(rows):
        _row(canvas, TOP + number * ROW, meter)
    text = [("meter", "now", "of its limit", "most")]
    for meter in rows:
        text.append((meter.name, meter.said, _part(meter, meter.course[-1]), _part(meter, max(meter.course))))
    return canvas.picture(f"{name}\n{table(text)}")


def meters(steps: Sequence[Usage], cpus: float | None) -> list[Meter]:
    """The rows of the picture, as numbers and words."""
    now = steps[-1]
    last = now.now
    moved = [tuple(step.received + step.sent for step in steps), tuple(step.read + step.written for step in steps)]
    of_cpus = f" of {cpus:g} CPUs" if cpus else ""
    return [
        Meter("CPU", tuple(step.cpu for step in steps), cpus or 0, f"{100 * now.cpu:.1f} %{of_cpus}", DEEP_BLUE),
        Meter(
            "memory",
            tuple(float(step.now.memory) for step in steps),
            last.limit,
            f"{size(last.memory)} of {size(last.limit)}",
            DEEP_GREEN,
        ),
        Meter("network", moved[0], 0, f"in {size(int(now.received))}/s, out {size(int(now.sent))}/s", DEEP_VIOLET),
        Meter("disk", moved[1], 0, f"read {size(int(now.read))}/s, written {size(int(now.written))}/s", DEEP_ORANGE),
        Meter("processes", tuple(float(step.now.pids) for step in steps), 0, str(last.pids), FAINT),
    ]


def _part(meter: Meter, value: float) -> str:
    return f"{100 * value / meter.whole:.0f} %" if meter.whole else "-"


def _row(canvas: Canvas, top: float, meter: Meter) -> None:
    """Name, bar, number and course of one meter."""
    canvas.text(LEFT, top + 19, meter.name, 13, bold=True)
    if meter.whole:
        part = min(meter.course[-1] / meter.whole, 1.0)
        canvas.box(BAR, top + 6, BAR_WIDTH, 18, GREY, FAINT)
        if part > 0:
            colour = DEEP_RED if part >= FULL else meter.colour
            canvas.box(BAR, top + 6, max(part * BAR_WIDTH, 4), 18, colour, colour)
    else:
        canvas.text(BAR, top + 19, "no limit shown", 12, FAINT)
    canvas.label(NUMBER, top + 19, meter.said, COURSE - NUMBER - 8, 12)
    width, height = END - COURSE, 28
    canvas.line(COURSE, top + 2 + height, END, top + 2 + height, FAINT, 1)
    highest = max(meter.whole, *meter.course) or 1.0
    # The newest stands at the right edge; a bar each, as wide as the number of samples allows.
    step = width / max(len(meter.course), FEWEST)
    for place, value in enumerate(reversed(meter.course)):
        x, high = END - (place + 0.5) * step, height * value / highest
        if high >= 0.5:
            canvas.line(x, top + 2 + height, x, top + 2 + height - high, meter.colour, max(step - 1, 1))
