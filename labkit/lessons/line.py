"""Top floor: the line between a notebook and the program that works for it.

Owns: a pair of pipe ends that carry whole parcels of bytes, each with its length before it.
A notebook's end never blocks for longer than its owner says; the child's end blocks for
as long as nothing is asked.

Read: pipe(7), poll(2).
"""

from __future__ import annotations

import os
import select
import struct
import time

HEAD = struct.Struct("<Q")


class Line:
    """One end of a two-way line."""

    def __init__(self, inward: int, outward: int) -> None:
        self.inward = inward
        self.outward = outward
        self.ended = False  # nothing more will come
        self.rest = b""

    def send(self, parcel: bytes, patience: float | None = None) -> None:
        """Send one parcel whole. Raises BrokenPipeError, and TimeoutError after `patience` seconds of waiting."""
        view = memoryview(HEAD.pack(len(parcel)) + parcel)
        deadline = None if patience is None else time.monotonic() + patience
        while view:
            if deadline is not None:
                ready = select.poll()
                ready.register(self.outward, select.POLLOUT)
                if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError("the other end of the line does not read")
            try:
                view = view[os.write(self.outward, view) :]
            except BlockingIOError:
                continue

    def receive(self) -> bytes | None:
        """The next parcel, however long it takes; None at the end of the line."""
        while True:
            parcel = self.next()
            if parcel is not None or self.ended:
                return parcel
            self.read()

    def read(self) -> None:
        """Take in what has arrived; on an end that does not block, perhaps nothing."""
        try:
            part = os.read(self.inward, 1 << 16)
        except BlockingIOError:
            return
        self.rest += part
        self.ended = not part

    def next(self) -> bytes | None:
        """The next parcel among what has been taken in."""
        if len(self.rest) < HEAD.size:
            return None
        (length,) = HEAD.unpack_from(self.rest)
        if len(self.rest) < HEAD.size + length:
            return None
        parcel, self.rest = self.rest[HEAD.size : HEAD.size + length], self.rest[HEAD.size + length :]
        return parcel

    def close(self) -> None:
        """Hang up. Twice is fine."""
        for fd in {self.inward, self.outward} - {-1}:
            os.close(fd)
        self.inward = self.outward = -1


def pair() -> tuple[Line, Line]:
    """(the near end, which does not block; the far end), closed at execve."""
    (near_in, far_out), (far_in, near_out) = os.pipe(), os.pipe()
    for fd in (near_in, near_out):
        os.set_blocking(fd, False)
    return Line(near_in, near_out), Line(far_in, far_out)
