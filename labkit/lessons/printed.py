"""Top floor: what the child prints, on its way into the cell.

Owns: the pipe, its decoding, and the limit beyond which a stage's output is counted instead
of shown.  It is read on in any case: a writer must not be stopped by a full pipe.

Read: pipe(7); codecs.IncrementalDecoder.
"""

from __future__ import annotations

import codecs
import os
import sys

LIMIT = 1 << 20  # bytes that one stage may print


class Printed:
    """The near end of the pipe that is the child's standard output and error."""

    def __init__(self) -> None:
        self.near, self.far = os.pipe()
        os.set_blocking(self.near, False)
        self.ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown = 0
        self._hidden = 0

    def begin(self) -> None:
        """A new stage: count from nothing."""
        self._shown = self._hidden = 0

    def drain(self) -> None:
        """Show what has arrived, without waiting."""
        while self.near >= 0 and not self.ended:
            try:
                part = os.read(self.near, 1 << 16)
            except BlockingIOError:
                break
            self.ended = not part
            room = max(0, LIMIT - self._shown)
            self._shown += min(room, len(part))
            self._hidden += max(0, len(part) - room)
            sys.stdout.write(self._decoder.decode(part[:room]))
            # Not while a flood lasts for ever: the caller has a clock to watch.
            if self._hidden:
                break
        sys.stdout.flush()

    def end(self) -> None:
        """The stage is over: say what was not shown."""
        if self._hidden:
            print(f"\n... cut after {LIMIT} bytes: {self._hidden} more were printed")
        self._hidden = 0

    def close_far(self) -> None:
        """The child has its end now."""
        if self.far >= 0:
            os.close(self.far)
        self.far = -1

    def close(self) -> None:
        """Read no more. Twice is fine."""
        self.close_far()
        if self.near >= 0:
            os.close(self.near)
        self.near = -1
