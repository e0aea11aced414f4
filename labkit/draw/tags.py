"""Drawing floor: letters and colours that stand for namespaces.

Owns: the order in which a snapshot's processes and namespaces are met, the letter that
each namespace gets in that order, kind by kind, and the colour that goes with the letter.
The oldest process comes first, so a new process changes no letter that was given before.

Read: namespaces(7).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from labkit.draw.svg import (
    DEEP_BLUE,
    DEEP_GREEN,
    DEEP_ORANGE,
    DEEP_RED,
    DEEP_SKY,
    DEEP_VIOLET,
    DEEP_YELLOW,
    INK,
)
from labkit.draw.words import clean
from labkit.observe.model import Process, Snapshot

KINDS = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")
# In turn light and dark, so that neighbours differ on grey paper too.
PALETTE = (
    ("#e6f0fa", DEEP_BLUE),
    ("#a5dabf", DEEP_GREEN),
    ("#fdeacb", DEEP_ORANGE),
    ("#c8b4e6", DEEP_VIOLET),
    ("#f6f0ae", DEEP_YELLOW),
    ("#eeae9e", DEEP_RED),
    ("#d6f1f6", DEEP_SKY),
    ("#b9c1c9", INK),
)


class Tag(NamedTuple):
    """What stands for one namespace: the letter tells it apart, the colour only helps the eye."""

    letter: str
    fill: str
    edge: str


def tag(number: int) -> Tag:
    """The tag of the namespace that is met as number 0, 1, 2, ...: A to Z, AA, AB, ..."""
    letters, rest = "", number + 1
    while rest:
        rest, letter = divmod(rest - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return Tag(letters, *PALETTE[number % len(PALETTE)])


def order(processes: Iterable[Process]) -> list[Process]:
    """The oldest first."""
    return sorted(processes, key=lambda process: (process.started, process.pid))


def tags(snapshot: Snapshot, shown: Sequence[Process]) -> dict[tuple[str, int], Tag]:
    """{(kind, inode): tag}: first those of the processes `shown` in their order, then what no such process is in."""
    met: dict[str, list[int]] = {}
    for process in shown:
        for kind, inode in process.namespaces.items():
            met.setdefault(kind, []).append(inode)
    # Those without a member by their place and not by their inode, which differs from run to run.
    memberless = sorted((space for space in snapshot.namespaces.values() if not space.members),
                        key=lambda space: (space.files, space.inode))  # fmt: skip
    for space in memberless:
        met.setdefault(space.kind, []).append(space.inode)
    for kind, inode in sorted(snapshot.namespaces):
        met.setdefault(kind, []).append(inode)
    met.setdefault("net", []).extend(sorted(snapshot.networks))
    return {(kind, inode): tag(number)
            for kind, inodes in met.items() for number, inode in enumerate(dict.fromkeys(inodes))}  # fmt: skip


def kinds(present: Iterable[str]) -> list[str]:
    """Kinds of namespaces in the usual order; pid_for_children and its like are no kinds."""
    there = {kind for kind in present if not kind.endswith("_for_children")}
    return [kind for kind in KINDS if kind in there] + sorted(there.difference(KINDS))


def numbers(process: Process) -> str:
    """A process's numbers: "pid 4711", or "pid 4711, 1 inside" where deeper namespaces number it anew."""
    inside = process.inside[1:]
    return f"pid {process.pid}" + (f", {' / '.join(map(str, inside))} inside" if inside else "")


def command(process: Process) -> str:
    """The command line as one string, or the name in brackets as ps(1) writes it."""
    return clean(" ".join(process.command)[:600]) if process.command else f"[{clean(process.name)}]"
