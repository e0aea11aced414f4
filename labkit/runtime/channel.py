"""Floor 3: the line between a container's maker and the process that becomes the container.

Owns: a pair of pipes that carry one JSON document a line.  Silence, the end of the line
without a word, is the best news: execve closed it.

Read: pipe(7), and O_CLOEXEC in open(2).
"""

from __future__ import annotations

import os

from labkit import leanjson
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Channel:
    """One end; made in pairs by `pair`."""

    def __init__(self, inward: int, outward: int) -> None:
        self.inward = inward
        self.outward = outward
        self._rest = b""

    def send(self, message: dict[str, Any]) -> None:
        """One document; a partner who is gone is not an error here."""
        try:
            os.write(self.outward, leanjson.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            pass

    def receive(self) -> dict[str, Any] | None:
        """The next document; None at the end of the line."""
        while b"\n" not in self._rest:
            part = os.read(self.inward, 65536)
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = leanjson.loads(line)
        return message

    def close(self) -> None:
        """Hang up."""
        os.close(self.inward)
        os.close(self.outward)


def pair() -> tuple[Channel, Channel]:
    """Two ends; Python's pipes close at execve by themselves."""
    (a_in, b_out), (b_in, a_out) = os.pipe(), os.pipe()
    return Channel(a_in, a_out), Channel(b_in, b_out)
