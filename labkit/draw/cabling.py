"""Drawing floor: the ways of wires between two columns of boxes.

Owns: a lane of its own for each upright piece of wire; in a crowd two wires share a lane
where their pieces do not meet, so that no wire seems to be another.

Read: labkit/draw/network.py for the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

# In pixels, for wires between the columns and for those within the right one: where they leave
# the links of the left and of the right column; the first lane, the last one, and the step.
OUT = {"between": (344.0, 472.0), "aside": (0.0, 778.0)}
FACES = {"between": (360.0, 454.0, 8.0), "aside": (794.0, 814.0, 5.0)}  # first lane, last lane, step

OWN = 24  # wires up to which each has a lane that no other uses


class End(NamedTuple):
    """Where a wire begins or ends: which column, how far down."""

    column: int
    y: float


class Wire(NamedTuple):
    """One veth pair."""

    one: End
    other: End


Segment = tuple[tuple[float, float], tuple[float, float]]


def lanes(wires: Sequence[Wire]) -> Iterator[list[Segment]]:
    """For each wire the level and upright pieces that make it."""
    taken: dict[str, list[list[tuple[float, float]]]] = {side: [] for side in FACES}
    found: list[tuple[Wire, str, int]] = []
    for wire in sorted(wires, key=_turn):
        top, bottom = sorted((wire.one.y, wire.other.y))
        side = "aside" if wire.one.column == wire.other.column == 1 else "between"
        free = (number for number, pieces in enumerate(taken[side])
                if all(bottom + 3 < above or below + 3 < top for above, below in pieces))  # fmt: skip
        lane = next(free, len(taken[side])) if len(wires) > OWN else len(taken[side])
        if lane == len(taken[side]):
            taken[side].append([])
        taken[side][lane].append((top, bottom))
        found.append((wire, side, lane))
    for wire, side, lane in found:
        first, last, step = FACES[side]
        x = first + lane * min(step, (last - first) / max(len(taken[side]) - 1, 1))  # a crowd moves closer together
        (x1, y1), (x2, y2) = ((OUT[side][end.column], end.y) for end in wire)
        yield [((x1, y1), (x, y1)), ((x, min(y1, y2)), (x, max(y1, y2))), ((x, y2), (x2, y2))]


def _turn(wire: Wire) -> tuple[bool, float]:
    """When a wire gets its lane: of those that go up the highest first, of those that go down the lowest.

    Then wires that keep their order on both sides do not cross.
    """
    left, right = sorted(wire)
    down = right.y > left.y
    return down, -left.y if down else left.y
