"""Drawing floor: the process tree across pid namespaces, and the numbers that each gives.

Owns: a box for each pid namespace, nested as they are; in it its processes as a tree, each
with the number that it has outside and those that it has inside.

Read: pid_namespaces(7); proc_pid_status(5) on NSpid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from labkit.draw.svg import FAINT, PAPER, Canvas, Picture
from labkit.draw.tags import Tag, command, order, tags
from labkit.draw.words import clean
from labkit.observe.model import Process, Snapshot

ROWS = 48  # of processes; above, those outside of inner pid namespaces are left out first
LEFT, WIDTH, ROW, STEP, INSET, TITLE, AIR = 12, 796, 24, 16, 14, 30, 6  # pixels
FARTHEST, DEEPEST = 300.0, 12  # pixels to the right, boxes in each other; what lies deeper stands in line
NUMBERS, NAME = 190, 150  # pixels for the numbers at the right, for a name


class Space(NamedTuple):
    """One pid namespace as the tree has it; inode 0 stands for what the reader may not see."""

    inode: int
    roots: list[Process]  # its processes whose parent is not in it
    inner: dict[int, list[int]]  # {pid of the parent of its first process, or 0: inner namespaces}


class Line(NamedTuple):
    """One line of the tree, before it is drawn."""

    kind: str  # process, open (a namespace begins), close, rest (some are left out)
    boxes: int  # namespaces around it
    steps: int  # ancestors within its namespace
    left: float  # pixels
    level: int  # of the twin's indentation
    inode: int
    process: Process | None = None
    hidden: int = 0


def tree(snapshot: Snapshot) -> Picture:
    """All processes of the snapshot, as many as fit."""
    everyone = order(snapshot.processes.values())
    shown = _choose(snapshot, everyone)
    lines = list(_lines(snapshot, everyone, shown))
    letters = tags(snapshot, everyone)
    height = 44 + sum(_height(line) for line in lines)
    canvas = Canvas(LEFT * 2 + WIDTH, height + 8, "processes across pid namespaces")
    canvas.text(LEFT, 24, "process", 12, FAINT)
    canvas.text(LEFT + WIDTH - NUMBERS, 24, "number outside → inside", 12, FAINT)
    if not everyone:
        canvas.text(LEFT + 90, 24, "none in this snapshot", 12)
    top, opened = 36.0, []
    boxes: list[tuple[Line, float, float]] = []
    for line in lines:
        if line.kind == "open":
            opened.append((line, top + AIR * (line.boxes > 0)))
        if line.kind == "close":
            begun, start = opened.pop()
            boxes.append((begun, start, top + 4))
        top += _height(line)
    for begun, start, end in sorted(boxes, key=lambda box: box[1]):  # the outer ones first, so that inner ones show
        _space(canvas, begun, start, end, letters)
    trunks: dict[float, float] = {}  # {where a process begins: down to where the line to its children goes}
    top, twin = 36.0, []
    for line in lines:
        twin += _said(line, letters)
        if line.process:
            _process(canvas, line, line.process, top)
            if line.steps and line.left < FARTHEST:
                canvas.line(line.left - 8, trunks[line.left - STEP], line.left - 8, top + 12, width=1.2)
                canvas.line(line.left - 8, top + 12, line.left - 2, top + 12, width=1.2)
                trunks[line.left - STEP] = top + 12
            trunks[line.left] = top + 20
        elif line.kind == "rest":
            canvas.text(line.left, top + 16, _rest(line), 11.5, FAINT)
        top += _height(line)
    return canvas.picture("\n".join(twin) if everyone else "no process in this snapshot")


def _choose(snapshot: Snapshot, everyone: Sequence[Process]) -> set[int]:
    """The pids that are drawn: those in inner namespaces and their ancestors before all others."""
    outer = min((len(process.inside) for process in everyone), default=1)
    chosen: dict[int, None] = {}
    for process in [one for one in everyone if len(one.inside) > outer] + list(everyone):
        way: list[int] = []
        above: Process | None = process
        while above is not None and above.pid not in chosen and above.pid not in way:
            way.append(above.pid)
            above = snapshot.processes.get(above.parent)
        if len(chosen) + len(way) <= ROWS:
            chosen.update(dict.fromkeys(reversed(way)))
    return set(chosen)


def _spaces(snapshot: Snapshot, everyone: Sequence[Process]) -> tuple[dict[int, Space], list[int]]:
    """The namespaces by inode, and those that lie in no other one that is known."""
    spaces = {process.namespaces.get("pid", 0): Space(process.namespaces.get("pid", 0), [], {}) for process in everyone}
    outermost = []
    above: dict[int, int] = {}
    for inode in spaces:
        first = next(one for one in everyone if one.namespaces.get("pid", 0) == inode)
        parent = snapshot.processes.get(first.parent)
        known = snapshot.namespaces.get(("pid", inode))
        around = known.parent if known and known.parent else parent.namespaces.get("pid", 0) if parent else 0
        while around not in spaces and (further := snapshot.namespaces.get(("pid", around))) and further.parent:
            if further.parent == around:
                break
            around = further.parent
        if around not in spaces or around == inode or _within(around, inode, above):
            outermost.append(inode)
            continue
        above[inode] = around
        begun = parent.pid if parent and parent.namespaces.get("pid", 0) == around else 0
        spaces[around].inner.setdefault(begun, []).append(inode)
    for process in everyone:
        own = process.namespaces.get("pid", 0)
        parent = snapshot.processes.get(process.parent)
        if parent is None or parent.namespaces.get("pid", 0) != own or _loops(snapshot, process):
            spaces[own].roots.append(process)
    return spaces, outermost


def _within(inode: int, other: int, above: dict[int, int]) -> bool:
    """Whether `inode` lies, as far as is known by now, in `other`."""
    while inode in above and inode != other:
        inode = above[inode]
    return inode == other


def _loops(snapshot: Snapshot, process: Process) -> bool:
    """Whether the process is its own ancestor: a snapshot is not taken in one instant, and pids come back."""
    seen: set[int] = set()
    above: Process | None = process
    while above is not None and above.pid not in seen:
        seen.add(above.pid)
        above = snapshot.processes.get(above.parent)
    return above is not None and above.pid == process.pid


def _lines(snapshot: Snapshot, everyone: Sequence[Process], shown: set[int]) -> Iterator[Line]:
    spaces, outermost = _spaces(snapshot, everyone)
    roots = {process.pid for space in spaces.values() for process in space.roots}
    children: dict[int, list[Process]] = {}
    for process in everyone:
        if process.pid not in roots:
            children.setdefault(process.parent, []).append(process)

    # A stack and no recursion: a chain of a thousand processes is a legal tree.
    work = [Line("open", 0, 0, LEFT, 0, inode) for inode in reversed(outermost)]
    while work:
        line = work.pop()
        space = spaces[line.inode]
        within = line._replace(boxes=line.boxes + 1, steps=0, left=_right(line.left, INSET), level=line.level + 1)
        below = line._replace(steps=line.steps + 1, left=_right(line.left, STEP), level=line.level + 1, process=None)
        if line.kind == "open":
            yield line
            work.append(line._replace(kind="close"))
            hidden = sum(1 for one in everyone if one.namespaces.get("pid", 0) == line.inode and one.pid not in shown)
            if hidden:
                work.append(within._replace(kind="rest", hidden=hidden))
            work += [within._replace(inode=inode) for inode in reversed(space.inner.get(0, []))]
            work += [within._replace(kind="process", process=root) for root in reversed(space.roots)]
        elif line.process is not None:
            if line.process.pid in shown:
                yield line
            pid = line.process.pid
            work += [below._replace(process=one) for one in reversed(children.get(pid, []))]
            # Right below their parent, lest they seem to belong to its last child.
            work += [below._replace(kind="open", inode=inode) for inode in reversed(space.inner.get(pid, []))]
        else:
            yield line


def _height(line: Line) -> float:
    # Above an inner namespace there is some air: its strip would touch the words of the line before.
    return {"process": ROW, "rest": ROW, "open": TITLE + AIR * (line.boxes > 0), "close": 12}[line.kind]


def _right(left: float, further: float) -> float:
    return min(left + further, FARTHEST)


def _space(canvas: Canvas, line: Line, start: float, end: float, letters: dict[tuple[str, int], Tag]) -> None:
    x = line.left
    sign = letters.get(("pid", line.inode), Tag("?", PAPER, FAINT))
    right = LEFT + WIDTH - 6 * min(line.boxes, DEEPEST)
    # Only a strip is coloured: words stand on white.
    canvas.box(x, start, right - x, end - start, PAPER, sign.edge, dashed=line.boxes > 0)
    canvas.box(x, start, right - x, TITLE - 8, sign.fill, sign.edge)
    canvas.label(x + 10, start + 15.5, _title(line, sign), right - x - 20, 12, bold=True)


def _title(line: Line, sign: Tag) -> str:
    return f"pid namespace {sign.letter}   {line.inode}" if line.inode else "pid namespace that may not be read"


def _process(canvas: Canvas, line: Line, process: Process, top: float) -> None:
    x = line.left
    end = LEFT + WIDTH - NUMBERS
    room = min(float(NAME), (end - x) / 2)
    canvas.label(x + 2, top + 16, clean(process.name), room - 6, 12.5, bold=True)
    canvas.label(x + 2 + room, top + 16, _about(line, process), end - x - room - 12, 11, FAINT, mono=True)
    canvas.label(end, top + 16, " → ".join(("pid " + str(process.pid), *map(str, process.inside[1:]))),
                 NUMBERS - 8 - 6 * min(line.boxes, DEEPEST), 12, mono=True)  # fmt: skip


def _about(line: Line, process: Process) -> str:
    """The command; before it, whose child this is where its place in the picture does not say so."""
    if _entered(line, process):
        return f"(entered, child of pid {process.parent}) {command(process)}"
    deep = f"(child of pid {process.parent}) " if line.steps and line.left == FARTHEST else ""
    said = command(process)
    return deep + ("" if said == clean(process.name) else said)  # a title of its own is name and command in one


def _entered(line: Line, process: Process) -> bool:
    """Whether it came in by setns(2): it lies within an inner namespace, and neither began it nor was born in it."""
    return line.boxes > 1 and not line.steps and bool(process.parent) and process.inside[-1:] != (1,)


def _rest(line: Line) -> str:
    return f"… and {line.hidden} more {'process' if line.hidden == 1 else 'processes'} here, not drawn"


def _said(line: Line, letters: dict[tuple[str, int], Tag]) -> list[str]:
    pad = "  " * line.level
    if line.kind == "open":
        return [pad + _title(line, letters.get(("pid", line.inode), Tag("?", "", ""))).replace("   ", " ")]
    if line.kind == "rest":
        return [pad + _rest(line)]
    if line.process is None:
        return []
    inside = line.process.inside[1:]
    return [f"{pad}{clean(line.process.name)}: pid {line.process.pid} outside"
            + "".join(f", {number} inside" for number in inside)
            + (f" (entered, child of pid {line.process.parent})" if _entered(line, line.process) else "")]  # fmt: skip
