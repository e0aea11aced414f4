"""Floor 2: errors that point at a line of the Dockerfile.

Owns: their form: file:line, what; then the line itself; then why, and what next.

Read: labkit.errors.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from labkit.errors import BadInput, LabError

Kind = TypeVar("Kind", bound=LabError)


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


def _few(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if len(lines) <= 8 else [*lines[:7], "..."]
