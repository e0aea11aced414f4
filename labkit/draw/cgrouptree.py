"""Drawing floor: a part of the cgroup tree, with the limits that are set and who is inside.

Owns: a line for each cgroup: its name below its parent's, what it hands on, the limits that
differ from those of a new cgroup, and its processes.

Read: Documentation/admin-guide/cgroup-v2.rst, "Organizing Processes and Threads"; systemd-cgls(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labkit.draw.svg import (
    BLUE,
    DEEP_BLUE,
    DEEP_ORANGE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    PAPER,
    VIOLET,
    Canvas,
    Picture,
    table,
)
from labkit.draw.words import clean
from labkit.observe.model import Cgroup

ROWS = 40  # cgroups; above, the first ones of the table
LEFT, ROW, STEP, DEEPEST = 12, 27, 16, 8  # pixels; steps to the right
HANDS, LIMITS, INSIDE, END = 226, 416, 650, 888  # pixels: where the columns begin
SHOWN = 2  # processes that are named; the rest is counted
# What a new cgroup holds: a file with this text limits nothing.
NEW = {
    **dict.fromkeys(("memory.max", "memory.high", "memory.swap.max", "pids.max", "cgroup.max.depth"), "max"),
    **dict.fromkeys(("memory.min", "memory.low", "memory.oom.group", "cgroup.freeze", "cpu.idle"), "0"),
    **{"cgroup.max.descendants": "max", "cpu.max": "max 100000", "cpu.weight": "100", "cgroup.type": "domain"},
    **{"io.weight": "default 100", "cpuset.cpus.partition": "member", "cgroup.subtree_control": None},
}


def tree(
    groups: Mapping[str, Cgroup], title: str = "", *, names: Mapping[int, str] | None = None, depth: int = 99
) -> Picture:
    """The cgroups as the tree that they are.

    names  {pid: what it is called}; without, processes are counted
    depth  so many levels; the processes of what lies deeper count with the last one shown
    """
    everything = list(_walk(groups))
    shown = [(level, path) for level, path in everything if level < depth][:ROWS]
    left_out = len([1 for level, _ in everything if level < depth]) - len(shown)
    head = 24 if title else 0
    heights = [ROW + 15 * (len(_limits(groups[path])[1:])) for _, path in shown]
    canvas = Canvas(END + LEFT, head + 40 + sum(heights) + (20 if left_out else 0) + 8, title or "cgroup tree")
    canvas.label(LEFT, 22, title, END - LEFT, 14, bold=True)
    heads = ("cgroup", "hands on", "limits", "processes")
    for x, words in zip((LEFT, HANDS, LIMITS, INSIDE), heads, strict=True):
        canvas.text(x, head + 24, words, 12, FAINT)
    rows = [heads]
    trunks: dict[int, float] = {}  # {level: down to where the line to the children of the last cgroup there goes}
    top = head + 36.0
    for (level, path), height in zip(shown, heights, strict=True):
        x = LEFT + min(level, DEEPEST) * STEP
        if 0 < level <= DEEPEST:
            canvas.line(x - 9, trunks[level - 1], x - 9, top + 11, width=1.2)
            canvas.line(x - 9, top + 11, x - 2, top + 11, width=1.2)
            trunks[level - 1] = top + 11
        trunks[level] = top + 22
        inside = _inside(groups, path, names, last=level == depth - 1)
        _row(canvas, x, top, groups[path], inside)
        hands, limits = _hands_on(groups[path]), ", ".join(_limits(groups[path]))
        rows.append((f"{'  ' * level}{_name(path)}", hands or "-", limits or "-", inside or "-"))
        top += height
    notes = [f"and {left_out} more"] if left_out else []
    if not shown:
        notes.append("no cgroups")
    for note in notes:
        canvas.label(LEFT, top + 14, note, END - LEFT, 11.5, FAINT)
    return canvas.picture("\n".join(([clean(title)] if title else []) + [table(rows)] + notes))


def _walk(groups: Mapping[str, Cgroup]) -> Iterator[tuple[int, str]]:
    """(level, path), parents before children, each below the nearest one that is there."""
    work = [(0, path) for path in sorted(groups, reverse=True) if not _above(path, groups)]
    children: dict[str, list[str]] = {}
    for path in sorted(groups, reverse=True):
        if above := _above(path, groups):
            children.setdefault(above, []).append(path)
    while work:
        level, path = work.pop()
        yield level, path
        work += [(level + 1, child) for child in children.get(path, [])]


def _above(path: str, groups: Mapping[str, Cgroup]) -> str:
    """The nearest cgroup above that is in the picture; empty when there is none."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        if path in groups:
            return path
    return ""


def _row(canvas: Canvas, x: float, top: float, group: Cgroup, inside: str) -> None:
    hands, limits = _hands_on(group), _limits(group)
    frozen = group.limits.get("cgroup.freeze") == "1"
    fill, edge = (BLUE, DEEP_BLUE) if inside else (ORANGE, DEEP_ORANGE) if hands else (PAPER, FAINT)
    canvas.box(x, top, HANDS - 12 - x, 22, VIOLET if frozen else fill, edge, dashed=not inside, title=group.path)
    canvas.label(x + 7, top + 15, _name(group.path), HANDS - 26 - x, 12, INK, mono=True, bold=bool(inside))
    canvas.label(HANDS, top + 15, hands, LIMITS - HANDS - 10, 11.5)
    for number, words in enumerate(limits):
        canvas.label(LIMITS, top + 15 + 15 * number, words, INSIDE - LIMITS - 10, 11.5, mono=True)
    if inside:
        canvas.box(INSIDE, top, END - INSIDE, 22, GREY, FAINT)
        canvas.label(INSIDE + 7, top + 15, inside, END - INSIDE - 14, 11.5)


def _name(path: str) -> str:
    return clean(path.rpartition("/")[2] or "/")


def _hands_on(group: Cgroup) -> str:
    return clean(group.limits.get("cgroup.subtree_control", ""))


def _limits(group: Cgroup) -> list[str]:
    """The files that a new cgroup would have another text in; one with several lines is joined."""
    return [
        clean(f"{file} {', '.join(text.splitlines())}")
        for file, text in group.limits.items()
        if text and NEW.get(file, "") not in (text, None)
    ]


def _inside(groups: Mapping[str, Cgroup], path: str, names: Mapping[int, str] | None, last: bool) -> str:
    """Who is in the cgroup, in words; for the last level, in all that lies below it too."""
    pids = set(groups[path].members)
    if last:
        below = f"{path.rstrip('/')}/"
        pids |= {pid for other, group in groups.items() if other.startswith(below) for pid in group.members}
    if names is None or not pids:
        return str(len(pids) or "")
    known = [clean(names.get(pid, f"pid {pid}")) for pid in sorted(pids)]
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN + 1 else ""
    return ", ".join(known[: SHOWN if more else SHOWN + 1]) + more
