"""Floor 2: the single thread of name server and forwarder: sockets that have something to say, and moments that come.

Owns: one selector and one list of timers.

Read: epoll(7); the standard library's selectors and heapq.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Callable

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
Handler = Callable[[int], None]


class Timer:
    """Something to do at a moment, unless it is cancelled before."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        """Do not do it."""
        self.act = None


class Loop:
    """Calls each socket's handler with the events that it is ready for, and each timer in its time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()  # of two timers for the same moment the older comes first

    def watch(self, what: socket.socket, events: int, handler: Handler) -> None:
        """Call `handler` when `what` is ready for one of `events`; 0 events: not any more."""
        known = what.fileno() in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(what)
        elif known:
            self._selector.modify(what, events, handler)
        else:
            self._selector.register(what, events, handler)

    def close(self, what: socket.socket) -> None:
        """Stop watching, and close."""
        if what.fileno() in self._selector.get_map():
            self._selector.unregister(what)
        what.close()

    def later(self, seconds: float, act: Callable[[], None]) -> Timer:
        """Call `act` after so many seconds."""
        timer = Timer(act)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def once(self) -> None:
        """Sleep until something is to be done, and do it."""
        for key, events in self._selector.select(self._patience()):
            if key.fileobj.fileno() >= 0:  # type: ignore[union-attr]  # an earlier handler of this round closed it
                key.data(events)
        while self._timers and self._timers[0][0] <= time.monotonic():
            act = heapq.heappop(self._timers)[2].act
            if act is not None:
                act()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].act is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
