"""Floor 1: the forms that a cgroup file's text has.

Owns: numbers where "max" means none, flat keyed files, nested keyed files, lists of
numbers; and reading a file so that a cgroup that is gone is an error that says so.

Read: Documentation/admin-guide/cgroup-v2.rst, "Interface File Formats".
"""

from __future__ import annotations

import os

from labkit.errors import NotFound
from labkit.kernel import attempts
from labkit.lean import StrPath, contents

Where = StrPath  # a cgroup's folder


def read(group: Where, name: str) -> str:
    """The text of one file of the cgroup, without the line end.

    Raises LabError: NotFound when the cgroup is gone, and otherwise with the reason why the
    file is not there (its controller is not handed down) or cannot be read.
    """
    path = f"{os.fspath(group)}/{name}"
    try:
        return contents(path).decode().rstrip("\n")
    except OSError as error:
        if not os.path.isdir(group):
            raise gone(group, f"cannot read {name}") from error
        attempts.teach(error, f"cannot read {path}", name, (path, ""))


def gone(group: Where, what: str) -> NotFound:
    """The error for a cgroup that is not there (any more)."""
    return NotFound(
        f"{what}: there is no cgroup {group}",
        why="it was never made, or has been removed; a container's goes with its last process",
        next=f"systemd-cgls {os.path.dirname(os.fspath(group))} shows what is there",
    )


def has(group: Where, name: str) -> bool:
    """Whether this kernel gives the cgroup that file."""
    return os.path.exists(f"{os.fspath(group)}/{name}")


def amount(text: str) -> int | None:
    """A number, or None for "max". Raises ValueError."""
    return None if text.strip() == "max" else int(text)


def word(number: int | None) -> str:
    """What is written for a number; None is "max"."""
    return "max" if number is None else str(number)


def flat(text: str) -> dict[str, int]:
    """KEY NUMBER lines: memory.events, cpu.stat."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def nested(text: str) -> dict[str, dict[str, str]]:
    """KEY NAME=VALUE NAME=VALUE lines: io.stat, io.max, memory.pressure; a bare KEY has no values."""
    lines = (line.split() for line in text.splitlines() if line.strip())
    return {words[0]: dict(pair.split("=", 1) for pair in words[1:] if "=" in pair) for words in lines}


def numbers(text: str) -> frozenset[int]:
    """{0, 1, 2, 5} of "0-2,5", the list format of cpuset.cpus. Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def listed(found: frozenset[int] | set[int]) -> str:
    """ "0-2,5" of {0, 1, 2, 5}."""
    parts: list[list[int]] = []
    for number in sorted(found):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def size(count: int) -> str:
    """Bytes for an error's text: "10 MiB", or the number where it is no whole unit."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count and count % (1 << power) == 0:
            return f"{count >> power} {unit}"
    return f"{count / (1 << 20):.1f} MiB" if count > 1 << 20 else f"{count} B"
