"""Reading floor: changes in a sentence that a person would say.

Owns: how a process is named, how numbers and kinds become words.

Read: pid_namespaces(7) on the several numbers of one process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from labkit.observe.model import Change, Process

OPENING = {"+": "", "~": "changed: ", "-": "gone: "}
PLURALS = {"process": "processes", "address": "addresses"}
SPELLED = 3  # so many changes of existing things are told one by one, more are counted


def words(changes: Sequence[Change]) -> str:
    """One sentence: "2 mounts, 1 pid namespace, 1 process: pid 1 inside, 4711 outside"."""
    return "; ".join(filter(None, (_part(sign, [one for one in changes if one.sign == sign]) for sign in OPENING))) or (
        "nothing changed"
    )


def _part(sign: str, changes: list[Change]) -> str:
    if not changes:
        return ""
    if sign == "~" and len(changes) <= SPELLED:
        return OPENING[sign] + ", ".join(f"{one.kind} {one.name}: {one.detail}" for one in changes)
    kinds = Counter(one.kind for one in changes)
    said = [count(number, kind) for kind, number in kinds.items()]
    # Last in the order, so that what is said about it ends the sentence.
    if kinds["process"] == 1 and sign == "+":
        said[list(kinds).index("process")] += f": {next(one.detail for one in changes if one.kind == 'process')}"
    return OPENING[sign] + ", ".join(said)


def count(number: int, kind: str) -> str:
    """1 mount, 2 mounts."""
    return f"{number} {kind if number == 1 else PLURALS.get(kind, f'{kind}s')}"


def named(process: Process) -> str:
    """sleep (pid 4711)."""
    return f"{process.name} (pid {process.pid})"


def across(process: Process) -> str:
    """The numbers of a process in the pid namespaces that it is in: pid 1 inside, 4711 outside."""
    *above, inside = process.inside
    if not above:
        return f"pid {inside}"
    between = "".join(f", {number} between" for number in reversed(above[1:]))
    return f"pid {inside} inside{between}, {above[0]} outside"
