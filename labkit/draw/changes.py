"""Drawing floor: what a cell changed in the kernel, and the system calls that made it so.

Owns: the changes at the left, kind by kind, each with its sign as a word's colour, a mark
and a head line; the calls at the right in the order in which they were made.

Read: labkit/observe/model.py on Change; strace(1) writes calls in the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from labkit.draw.svg import (
    DEEP_GREEN,
    DEEP_ORANGE,
    DEEP_RED,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    Canvas,
    Picture,
)
from labkit.draw.words import LONGEST, MONO, clean, cut, width
from labkit.observe.model import Change

ROWS = 40  # lines on each side
LEFT, MIDDLE, RIGHT, END, ROW, HEAD = 12, 404, 420, 808, 22, 46  # pixels
PID = re.compile(r"(?<=\bpid )\d{1,7}\b|\b\d{1,7}(?= (?:in|out)side)")
NAMES, ROOM, USUAL = 44, 348.0, 146.0  # pixels: where names begin, for name and detail, for the name where that does
DETAILS = 4  # lines that the details of one change take at most
# sign: (area, edge, the word for it)
LOOK = {
    "+": (GREEN, DEEP_GREEN, "appeared"),
    "-": (RED, DEEP_RED, "went"),
    "~": (ORANGE, DEEP_ORANGE, "changed"),
}
MINUS = {"-": "–"}  # as wide as the plus
FAILED = re.compile(r" = -1 (\w+)$")
# A bounding set is given away capability by capability: forty lines that would hide all that comes behind them.
GIVEN = re.compile(r"(prctl\(PR_CAPBSET_DROP, )(\w+)(, .*)")
LINES, INSET = 3, 14  # lines that one call takes at most; pixels that those behind the first are moved in


def changes(found: Sequence[Change], calls: Sequence[object] = ()) -> Picture:
    """found -- what a difference of two snapshots says
    calls -- the system calls in their order, as objects whose str() is the call and its answer
    """
    groups: dict[str, list[Change]] = {}
    for change in found:
        groups.setdefault(change.kind, []).append(change)
    left = list(_left(groups))
    right = _folded(clean(str(call)) for call in calls)
    wrapped = [_wrapped(text, times) for text, times in right[:ROWS]]
    below = (HEAD + sum(_tall(one, column) for _, one, column in left[:ROWS]),
             HEAD + sum(_height(lines) for lines in wrapped))  # fmt: skip
    more = sum(1 for _, change, _ in left[ROWS:] if change), sum(times for _, times in right[ROWS:])
    height = max(max(below) + (ROW if any(more) else 0), HEAD + ROW) + 12
    canvas = Canvas(END + LEFT, height, "changes in the kernel")
    canvas.text(LEFT, 28, f"what changed in the kernel ({len(found)})", 13.5, bold=True)
    canvas.text(RIGHT, 28, f"system calls that were made ({len(calls)})", 13.5, bold=True)
    canvas.line(MIDDLE, 12, MIDDLE, height - 10, width=1)
    if not found:
        canvas.text(LEFT, HEAD + 16, "nothing that a snapshot shows", 12, FAINT)
    if not calls:
        canvas.text(RIGHT, HEAD + 16, "none on record", 12, FAINT)
    top = float(HEAD)
    for head, one, column in left[:ROWS]:
        _change(canvas, top, head, one, column)
        top += _tall(one, column)
    top = float(HEAD)
    for (text, times), lines in zip(right, wrapped, strict=False):
        _call(canvas, top, text, times, lines)
        top += _height(lines)
    for x, y, count, what in zip((LEFT, RIGHT), below, more, ("changes", "calls"), strict=True):
        if count:
            canvas.text(x, y + 16, f"… and {count} more {what}, not drawn", 11.5, FAINT)
    return canvas.picture(_twin(groups, right))


def _left(groups: dict[str, list[Change]]) -> Iterable[tuple[str, Change | None, float]]:
    """(head line, None, 1) before each group, then ("", change, column) for each of its changes."""
    for kind, members in groups.items():
        yield _count(kind, members), None, 1.0
        column = _column(members)
        yield from (("", change, column) for change in members)


def _column(members: Sequence[Change]) -> float:
    """Where the details of a group begin, in pixels after the names' beginning; 0: they need lines of their own."""
    names = max(width(_steady(change.name), 12, mono=True) for change in members) + 14
    details = max(width(_steady(change.detail), 11) for change in members)
    if not details:
        return ROOM
    if names <= USUAL and details <= ROOM - USUAL:
        return USUAL
    return names if names + details <= ROOM else 0.0


def _steady(words: str) -> str:
    """The words with pids as long as pids get: whether one has three digits or four must not move the picture."""
    return PID.sub("0000000", clean(words[:LONGEST]))


def _tall(change: Change | None, column: float) -> float:
    return ROW if change is None or column else ROW + 15 * len(_lines(change.detail))


def _lines(detail: str) -> list[str]:
    """A detail in as many lines as it takes, up to DETAILS, broken behind commas or else at spaces."""
    found = [""]
    for part in re.split(r"(?<=, )" if ", " in detail else r"(?<= )", detail[:LONGEST]):
        if found[-1] and len(found) < DETAILS and width(_steady(found[-1] + part), 11) > ROOM:
            found.append("")
        found[-1] += part
    return [line.rstrip() for line in found]


def _count(kind: str, members: Sequence[Change]) -> str:
    counts = ((LOOK[sign][2], sum(1 for change in members if change.sign == sign)) for sign in LOOK)
    return f"{clean(kind)}: " + ", ".join(f"{count} {word}" for word, count in counts if count)


def _change(canvas: Canvas, top: float, head: str, change: Change | None, column: float) -> None:
    if change is None:
        canvas.label(LEFT, top + 16, head, MIDDLE - LEFT - 12, 12, FAINT, bold=True)
        return
    fill, edge, word = LOOK.get(change.sign, (GREY, FAINT, "?"))
    canvas.box(LEFT + 4, top + 2, 20, ROW - 4, fill, edge, dashed=change.sign == "-", title=word)
    canvas.text(LEFT + 14, top + 16, MINUS.get(change.sign, change.sign if change.sign in LOOK else "?"), 13, edge,
                anchor="middle", bold=True)  # fmt: skip
    whole = f"{change.name}  {change.detail}"
    canvas.label(NAMES, top + 16, change.name, (column or ROOM) - 10, 12, mono=True, title=whole)
    if column:
        canvas.label(NAMES + column, top + 16, change.detail, ROOM - column, 11, FAINT, title=whole)
    else:
        for number, line in enumerate(_lines(change.detail)):
            canvas.label(NAMES, top + 31 + 15 * number, line, ROOM, 11, FAINT, title=whole)


def _folded(texts: Iterable[str]) -> list[tuple[str, int]]:
    """The same call with the same answer several times in a row, as one with its count.

    Those that drop a capability differ in it alone: of a row of them, the first and the last are named.
    """
    found: list[tuple[str, int]] = []
    first = ""  # of the row that found[-1] is
    for text in texts:
        old, new = GIVEN.fullmatch(first), GIVEN.fullmatch(text)
        if found and first == text:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        elif old and new and old[3] == new[3]:
            found[-1] = (f"{old[1]}{old[2]} … {new[2]}{old[3]}", found[-1][1] + 1)
        else:
            found.append((text, 1))
            first = text
    return found


def _wrapped(text: str, times: int) -> list[str]:
    """A call in up to LINES lines, broken before its answer, or at a space, or behind a flag."""
    found: list[str] = []
    while len(found) < LINES - 1:
        room = END - RIGHT - (56 if times > 1 else 0) - (INSET if found else 0)
        if width(text, 11.5, mono=True) <= room:
            break
        fits = int(room / (11.5 * MONO)) if text.isascii() else len(cut(text, room, 11.5, mono=True)) // 2
        answer, space = text.rfind(" = ", fits // 3, fits + 3), text.rfind(" ", fits // 3, fits)
        end = next((place + 1 for place in (answer, space, text.rfind("|", fits // 3, fits)) if place > 0), fits)
        found.append(text[:end].rstrip())
        text = text[end:]
    return [*found, text]


def _height(lines: Sequence[str]) -> float:
    return ROW + 15 * (len(lines) - 1)


def _call(canvas: Canvas, top: float, text: str, times: int, lines: Sequence[str]) -> None:
    if FAILED.search(text):  # its own " = -1 ENOENT" is the word for it
        canvas.box(RIGHT - 6, top + 2, END - RIGHT + 8, _height(lines) - 4, RED, DEEP_RED, dashed=True, title=text)
    room = END - RIGHT - (56 if times > 1 else 0)
    for number, line in enumerate(lines):
        inset = INSET if number else 0
        canvas.label(RIGHT + inset, top + 15.5 + 15 * number, line, room - inset, 11.5, INK, mono=True, title=text)
    if times > 1:
        canvas.label(END - 4, top + 15.5, f"× {times}", 50, 11.5, FAINT, anchor="end", bold=True)


def _twin(groups: dict[str, list[Change]], right: Sequence[tuple[str, int]]) -> str:
    lines = ["what changed in the kernel:"]
    for kind, members in groups.items():
        lines.append(f"  {_count(kind, members)}")
        lines += [f"    {clean(one.sign)} {clean(one.name)}{'  ' if one.detail else ''}{clean(one.detail)}"
                  for one in members]  # fmt: skip
    if not groups:
        lines.append("  nothing that a snapshot shows")
    lines.append("system calls that were made:")
    lines += [f"  {text}{f'  × {times}' if times > 1 else ''}" for text, times in right] or ["  none on record"]
    return "\n".join(lines)
