"""Drawing floor: a mount table as the tree that it is.

Owns: a line for each mount: where, what file system, from which source, read only or not,
and how mounts and unmounts below it spread (shared, master, private, unbindable).

Read: mount_namespaces(7), "Shared subtrees"; proc_pid_mountinfo(5); findmnt(8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from labkit.draw.svg import (
    BLUE,
    DEEP_BLUE,
    DEEP_ORANGE,
    DEEP_RED,
    DEEP_VIOLET,
    FAINT,
    GREY,
    INK,
    ORANGE,
    RED,
    VIOLET,
    Canvas,
    Picture,
    table,
)
from labkit.draw.words import clean
from labkit.observe.mountinfo import Mount

ROWS = 60  # mounts; above, the first ones of the table
LEFT, ROW, STEP, DEEPEST = 12, 24, 15, 10  # pixels; steps to the right
KIND, SOURCE, ONLY, SPREAD, END = 336, 426, 588, 656, 808  # pixels: where the columns begin
# (has it peers, does it receive): area, edge, dashed
LOOK = {
    (True, False): (BLUE, DEEP_BLUE, False),
    (False, True): (ORANGE, DEEP_ORANGE, True),
    (True, True): (VIOLET, DEEP_VIOLET, True),
}


def tree(mounts: Sequence[Mount], title: str = "") -> Picture:
    """The mounts, parents above children, siblings in the table's order."""
    shown = list(_walk(mounts[:ROWS]))
    left_out = Counter(mount.kind for mount in mounts[ROWS:])
    head = 24 if title else 0
    canvas = Canvas(END + LEFT, head + 44 + ROW * len(shown) + (20 if left_out else 0) + 8, title or "mount tree")
    canvas.label(LEFT, 22, title, END - LEFT, 14, bold=True)
    heads = ((LEFT, "mounted on"), (KIND, "type"), (SOURCE, "source"), (ONLY, ""), (SPREAD, "propagation"))
    for x, words in heads:
        canvas.text(x, head + 24, words, 12, FAINT)
    covered = {mount.parent for mount in mounts if _covers(mount, mounts)}
    rows = [("mounted on", "type", "source", "", "propagation")]
    trunks: dict[int, float] = {}  # {depth: down to where the line to the children of the last mount there goes}
    for number, (depth, mount) in enumerate(shown):
        top = head + 36 + ROW * number
        x = LEFT + min(depth, DEEPEST) * STEP
        if 0 < depth <= DEEPEST:
            canvas.line(x - 9, trunks[depth - 1], x - 9, top + 12, width=1.2)
            canvas.line(x - 9, top + 12, x - 2, top + 12, width=1.2)
            trunks[depth - 1] = top + 12
        trunks[depth] = top + 20
        _row(canvas, x, top, mount, mount.number in covered)
        place = f"{'  ' * depth}{clean(mount.place)}{' (covered)' if mount.number in covered else ''}"
        rows.append((place, clean(mount.kind), _source(mount), _writes(mount), _spread(mount)))
    notes = []
    if not mounts:
        notes.append("no mounts")
        canvas.text(LEFT + 90, 24 + head, "none", 12)
    if left_out:
        kinds = ", ".join(f"{count} {clean(kind)}" for kind, count in sorted(left_out.items()))
        notes.append(f"and {left_out.total()} more mounts: {kinds}")
        canvas.label(LEFT, head + 52 + ROW * len(shown), notes[-1], END - LEFT, 11.5, FAINT)
    return canvas.picture("\n".join(([clean(title)] if title else []) + [table(rows)] + notes))


def _walk(mounts: Sequence[Mount]) -> Iterator[tuple[int, Mount]]:
    """(depth, mount), each mount once, whatever the numbers say."""
    known = {mount.number for mount in mounts}
    children: dict[int, list[Mount]] = {}
    roots = []
    for mount in mounts:
        if mount.parent in known and mount.parent != mount.number:
            children.setdefault(mount.parent, []).append(mount)
        else:
            roots.append(mount)
    # Mounts in a circle hang on no root; each is tried as one, and `seen` lets it pass once.
    work = [(0, mount) for mount in reversed([*roots, *mounts])]
    seen: set[int] = set()
    while work:
        depth, mount = work.pop()
        if id(mount) in seen:
            continue
        seen.add(id(mount))
        yield depth, mount
        work += [(depth + 1, child) for child in reversed(children.get(mount.number, []))]


def _covers(mount: Mount, mounts: Sequence[Mount]) -> bool:
    """Whether it is mounted on the very place of its parent, which it hides."""
    return any(mount.parent == other.number != mount.number and mount.place == other.place for other in mounts)


def _row(canvas: Canvas, x: float, top: float, mount: Mount, covered: bool) -> None:
    room = KIND - 12 - x
    canvas.label(x, top + 16, mount.place, room - (62 if covered else 0), 12, FAINT if covered else INK, mono=True,
                 bold=not covered)  # fmt: skip
    if covered:
        canvas.text(KIND - 12, top + 16, "covered", 11, DEEP_RED, anchor="end")
    canvas.label(KIND, top + 16, mount.kind, SOURCE - KIND - 10, 12)
    canvas.label(SOURCE, top + 16, _source(mount), ONLY - SOURCE - 10, 11.5, FAINT, mono=True)
    if writes := _writes(mount):
        canvas.box(ONLY, top + 3, SPREAD - ONLY - 6, ROW - 6, GREY, FAINT, title=",".join(mount.options))
        canvas.label((ONLY + SPREAD - 6) / 2, top + 15.5, writes, SPREAD - ONLY - 10, 11, anchor="middle")
    spread = _spread(mount)
    fill, edge, dashed = LOOK.get((any(word.startswith("shared:") for word in mount.propagation),
                                   any(word.startswith("master:") for word in mount.propagation)),
                                  (RED, DEEP_RED, False))  # fmt: skip
    if spread == "private":
        canvas.text(SPREAD + 7, top + 15.5, spread, 11, FAINT)
    else:
        canvas.box(SPREAD, top + 3, END - SPREAD, ROW - 6, fill, edge, dashed)
        canvas.label(SPREAD + 7, top + 15.5, spread, END - SPREAD - 12, 11)


def _source(mount: Mount) -> str:
    """As findmnt(8) writes it: /dev/vda1[/folder] where a part of the file system is mounted."""
    part = "" if mount.root == "/" else f"[{mount.root}]"
    return clean(mount.source + part)


def _writes(mount: Mount) -> str:
    """Which of the two refuses writes, the mount or the whole file system; nothing where both take them."""
    if mount.read_only:
        return "ro"
    return "ro (fs)" if "ro" in mount.superblock.split(",") else ""


def _spread(mount: Mount) -> str:
    return clean(", ".join(mount.propagation)) or "private"
