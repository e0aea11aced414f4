"""Ground floor: how every error of the kit speaks.

Owns: the one exception type that reaches a person, and its wording.
An error says four things, in this order: what was being done and to what, why
it failed on this machine, and what to try next.  A bare errno is never shown.

Read: errno(3).
"""

from __future__ import annotations

import os

from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


class LabError(Exception):
    """Something a person asked for could not be done.

    what    -- the action and its object, in one sentence without a full stop
    why     -- the cause found on this machine (empty when none was found)
    next    -- the next thing to try (empty when there is nothing to try)
    status  -- the exit status a command ends with (docker run: 125 the engine
               failed, 126 the command cannot be executed, 127 it is not there)

    LabError
    ├── NotFound      a name, image, container or file that does not exist
    ├── InUse         a name, port or device that somebody else holds
    ├── BadInput      a value that cannot be understood, named with its option
    ├── Refused       this kernel or this user may not do it
    └── Mismatch      bytes that are not what their digest promises
    """

    def __init__(self, what: str, *, why: str = "", next: str = "", status: int = 125) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next
        self.status = status

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why:  {self.why}")
        if self.next:
            lines.append(f"  next: {self.next}")
        return "\n".join(lines)


class NotFound(LabError):
    """A name, image, container or file that does not exist."""


class InUse(LabError):
    """A name, port or device that somebody else holds."""


class BadInput(LabError):
    """A value that cannot be understood."""


class Refused(LabError):
    """This kernel, or this user on it, may not do what was asked."""


class Mismatch(LabError):
    """Bytes that are not what their digest promises."""


def explain(error: OSError, what: str, *, why: str = "", next: str = "") -> NoReturn:
    """Raise `error` again as a LabError that keeps the kernel's own words."""
    words = f"{os.strerror(error.errno)} (errno {error.errno})" if error.errno else str(error)
    raise LabError(what, why=f"{words}. {why}" if why else words, next=next) from error
