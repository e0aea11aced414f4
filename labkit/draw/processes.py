"""Drawing floor: which namespaces processes are in, as a matrix.

Owns: a row for each process, a column for each kind of namespace; the same namespace has
the same letter and colour wherever it stands in its column.  Many processes that are in
the same namespaces share a row; `tree` in labkit/draw/numbers.py draws who is whose child.

Read: namespaces(7); lsns(8) shows the same in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.numbers import tree
from labkit.draw.svg import FAINT, GREY, PAPER, Canvas, Picture, table
from labkit.draw.tags import Tag, kinds, numbers, order, tags
from labkit.draw.words import clean
from labkit.observe.model import Process, Snapshot

__all__ = ["matrix", "tree"]

ROWS = 24  # of processes; above, those that share all their namespaces are one row
LEFT, NAME, COLUMN, CELL, ROW, HEAD = 12, 172, 78, 72, 40, 44  # pixels


class Row(NamedTuple):
    """One row: a process, several alike, or a namespace that no process is in."""

    name: str
    below: str  # the small line under the name
    spaces: dict[str, int]  # {kind: inode}


def matrix(snapshot: Snapshot, pids: Sequence[int] | None = None) -> Picture:
    """The namespaces of the processes `pids`, in that order; of all, the oldest first, without it."""
    asked = list(dict.fromkeys(pids)) if pids is not None else None
    if asked is None:
        shown = order(snapshot.processes.values())
    else:
        shown = [snapshot.processes[pid] for pid in asked if pid in snapshot.processes]
    letters = tags(snapshot, shown)
    rows = [Row(clean(process.name), numbers(process), dict(process.namespaces)) for process in shown]
    if len(rows) > ROWS:
        rows = _alike(shown)
    if asked is None:
        rows += _empty(snapshot)
    left_out = len(rows) - ROWS
    rows = rows[:ROWS]
    notes = []
    if left_out > 0:
        notes.append(f"and {left_out} more rows that do not fit here; name the pids that you want to see")
    if gone := [pid for pid in asked or [] if pid not in snapshot.processes]:
        some = ", ".join(f"pid {pid}" for pid in gone[:8]) + (f" and {len(gone) - 8} more" if len(gone) > 8 else "")
        notes.append(f"not in this snapshot: {some}")
    if not rows:
        notes.append("no process to show")
    return _draw(rows, kinds(kind for row in rows for kind in row.spaces), letters, notes)


def _alike(shown: Sequence[Process]) -> list[Row]:
    groups: dict[tuple[tuple[str, int], ...], list[Process]] = {}
    for process in shown:
        groups.setdefault(tuple(sorted(process.namespaces.items())), []).append(process)
    return [Row(clean(members[0].name), numbers(members[0]) if len(members) == 1 else
                f"pid {members[0].pid} and {len(members) - 1} alike", dict(spaces))
            for spaces, members in groups.items()]  # fmt: skip


def _empty(snapshot: Snapshot) -> list[Row]:
    """Namespaces that a file alone keeps alive."""
    found = [space for space in snapshot.namespaces.values() if not space.members and space.files]
    return [Row("no process", f"held by {clean(space.files[0])}", {space.kind: space.inode})
            for space in sorted(found, key=lambda space: (space.files, space.kind, space.inode))]  # fmt: skip


def _draw(rows: Sequence[Row], columns: Sequence[str], letters: dict[tuple[str, int], Tag],
          notes: Sequence[str]) -> Picture:  # fmt: skip
    canvas = Canvas(max(LEFT + NAME + COLUMN * len(columns) + 8, 430), HEAD + ROW * len(rows) + 20 * len(notes) + 26,
                    "namespaces of processes")  # fmt: skip
    for number, kind in enumerate(columns):
        middle = LEFT + NAME + COLUMN * number + CELL / 2
        canvas.label(middle, 30, kind, CELL, 13, anchor="middle", bold=True, mono=True)
    lines = [("process", "", *columns)]
    for number, row in enumerate(rows):
        top = HEAD + ROW * number
        canvas.label(LEFT, top + 15, row.name, NAME - 10, 12.5, bold=True)
        canvas.label(LEFT, top + 30, row.below, NAME - 10, 11, FAINT)
        for column, kind in enumerate(columns):
            _cell(canvas, LEFT + NAME + COLUMN * column, top, kind, row, letters)
        said = [letters[kind, row.spaces[kind]].letter if kind in row.spaces else "-" for kind in columns]
        lines.append((row.name, row.below, *said))
    words = ["same letter in a column = same namespace", *notes] if rows else list(notes)
    for number, note in enumerate(words):
        canvas.label(LEFT, HEAD + ROW * len(rows) + 16 + 20 * number, note, canvas.width - 2 * LEFT, 11.5, FAINT)
    legend = []
    for kind in columns:
        inodes = dict.fromkeys(row.spaces[kind] for row in rows if kind in row.spaces)
        legend.append((kind, ", ".join(f"{letters[kind, inode].letter} {inode}" for inode in inodes)))
    parts = ([table(lines), "", table(legend)] if legend else []) + list(notes)
    return canvas.picture("\n".join(parts))


def _cell(canvas: Canvas, x: float, y: float, kind: str, row: Row, letters: dict[tuple[str, int], Tag]) -> None:
    middle = x + CELL / 2
    if kind not in row.spaces:
        unknown = row.name != "no process"
        if unknown:
            canvas.box(x, y, CELL, ROW - 6, PAPER, GREY, dashed=True, title="the reader may not see this")
        canvas.text(middle, y + 21, "?" if unknown else "·", 13, FAINT, anchor="middle")
        return
    inode = row.spaces[kind]
    sign = letters[kind, inode]
    canvas.box(x, y, CELL, ROW - 6, sign.fill, sign.edge, title=f"{kind} namespace {inode}")
    canvas.text(middle, y + 15, sign.letter, 13.5, anchor="middle", bold=True)
    canvas.label(middle, y + 28, str(inode), CELL - 4, 10.5, anchor="middle", mono=True)
