"""Floor 2: errors that point at a line of the Dockerfile.

Owns: their form: file:line, what; then the line itself; then why, and what next.

Read: labkit.errors.
"""

from __future__ import annotations

import errno
from typing import NamedTuple, TypeVar

from labkit.errors import BadInput, LabError, explain

Kind = TypeVar("Kind", bound=LabError)
FULL = (errno.ENOSPC, errno.EDQUOT)


class Place(NamedTuple):
    """Where something stands: the file as people call it, lines counted from 1, and their text."""

    file: str
    first: int
    last: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.first}"


def at(place: Place, what: str, *, why: str = "", next: str = "", kind: type[LabError] = BadInput,
       status: int = 1) -> LabError:  # fmt: skip
    """An error (not raised yet) whose first line is file:line and whose second is the line itself."""
    quoted = "\n".join(f"  {place.first + number:>4} | {line}" for number, line in enumerate(_few(place.text)))
    return kind(f"{place}: {what}\n{quoted}", why=why, next=next, status=status)


def blame(place: Place, error: LabError) -> LabError:
    """The same error, of the same kind, as one of that line; with docker build's status, unless it has its own."""
    what, status = error.what.replace("\n", " "), 1 if error.status == LabError("").status else error.status
    return at(place, what, why=error.why, next=error.next, kind=type(error), status=status)


def taught(error: LabError | OSError, what: str) -> LabError:
    """The error as it is, or the system's own as one that says what was being done; not raised yet."""
    if isinstance(error, LabError):
        return error
    why = f"It was about {error.filename}; nothing of the step was kept" if error.filename else ""
    next_ = "labkit prune, or a larger disk: df -h" if error.errno in FULL else "labkit doctor, and the build again"
    try:
        explain(error, what, why=why or "nothing of the step was kept", next=next_)
    except LabError as made:
        made.status = 1  # docker build's
        return made


def _few(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if len(lines) <= 8 else [*lines[:7], "..."]
