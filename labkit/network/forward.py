"""Floor 2: the forwarder: bytes from a listening socket of the machine into a container.

    python -m labkit.network.forward LIFELINE PROTOCOL:FD:PORT:ADDRESS ...

Owns: the loopback's way to published ports, which DNAT cannot serve: a packet from
127.0.0.1 may not leave the machine.  Docker runs a docker-proxy for the same reason.
One process a container, one thread, one selector.

Read: epoll(7), tcp(7); ip-sysctl.rst on route_localnet.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
from collections.abc import Callable

from labkit.kernel import process

CHUNK = 65536
Selector = selectors.DefaultSelector


def main(argv: list[str]) -> int:
    """Serve until killed."""
    lifeline, *words = argv
    if not os.read(int(lifeline), 1):  # the starter died before it wrote us into the ledger
        return 1
    os.close(int(lifeline))
    process.set_title("labkit-forward")
    selector = Selector()
    for word in words:
        protocol, fd, port, address = word.split(":", 3)
        listener = socket.socket(fileno=int(fd))
        listener.setblocking(False)
        serve = TcpListener if protocol == "tcp" else UdpRelay
        serve(selector, listener, (address, int(port)))
    while True:
        for key, events in selector.select():
            key.data(events)


def family(target: tuple[str, int]) -> socket.AddressFamily:
    """Of the address that is led to."""
    return socket.AF_INET6 if ":" in target[0] else socket.AF_INET


class TcpListener:
    """Accepts, and joins each connection to a new one into the container."""

    def __init__(self, selector: Selector, listener: socket.socket, target: tuple[str, int]) -> None:
        self.selector, self.listener, self.target = selector, listener, target
        selector.register(listener, selectors.EVENT_READ, self.accept)

    def accept(self, events: int) -> None:
        """One more connection."""
        try:
            near, _ = self.listener.accept()
        except OSError:
            return
        far = socket.socket(family(self.target))
        for end in (near, far):
            end.setblocking(False)
        try:
            far.connect(self.target)
        except BlockingIOError:
            pass
        except OSError:
            near.close()
            far.close()
            return
        Pair(self.selector, near, far)


class Pair:
    """Two connected sockets; what comes out of one goes into the other, as fast as that takes it."""

    def __init__(self, selector: Selector, near: socket.socket, far: socket.socket) -> None:
        self.selector = selector
        self.ends = (near, far)
        self.closed = False
        self.waiting = {near: b"", far: b""}  # bytes that this end has not taken yet
        self.finished: set[socket.socket] = set()  # ends that have said all they had to say
        self.handlers: dict[socket.socket, Callable[[int], None]] = {
            near: lambda events: self.act(near, far, events),
            far: lambda events: self.act(far, near, events),
        }
        selector.register(near, selectors.EVENT_READ, self.handlers[near])
        selector.register(far, selectors.EVENT_READ | selectors.EVENT_WRITE, self.handlers[far])

    def act(self, end: socket.socket, other: socket.socket, events: int) -> None:
        """Take what `end` says, give it what waits for it."""
        if self.closed:  # the other end's event, in the same round, has hung up on both
            return
        try:
            if events & selectors.EVENT_WRITE:
                self.flush(end)
            if events & selectors.EVENT_READ and not self.waiting[other]:
                data = end.recv(CHUNK)
                if data:
                    self.waiting[other] = data
                else:
                    self.finished.add(end)
                self.flush(other)
        except BlockingIOError:
            pass
        except OSError:  # reset, refused: both ends hear of it
            self.close()
            return
        self.update()

    def flush(self, end: socket.socket) -> None:
        """Send what waits; pass the end of the talk on when nothing waits any more."""
        if self.waiting[end]:
            try:
                sent = end.send(self.waiting[end])
            except BlockingIOError:
                return
            self.waiting[end] = self.waiting[end][sent:]
        other = self.ends[1] if end is self.ends[0] else self.ends[0]
        if not self.waiting[end] and other in self.finished:
            try:
                end.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def update(self) -> None:
        """Listen for what can be handled now, or hang up when both have finished."""
        near, far = self.ends
        if len(self.finished) == 2 and not any(self.waiting.values()):
            self.close()
            return
        for end, other in ((near, far), (far, near)):
            events = 0
            if end not in self.finished and not self.waiting[other]:
                events |= selectors.EVENT_READ
            if self.waiting[end]:
                events |= selectors.EVENT_WRITE
            registered = end.fileno() in self.selector.get_map()
            if events and registered:
                self.selector.modify(end, events, self.handlers[end])
            elif events:
                self.selector.register(end, events, self.handlers[end])
            elif registered:
                self.selector.unregister(end)

    def close(self) -> None:
        """Hang up on both."""
        self.closed = True
        for end in self.ends:
            if end.fileno() in self.selector.get_map():
                self.selector.unregister(end)
            end.close()


class UdpRelay:
    """Each client gets a socket of its own into the container, so that answers find back."""

    MOST = 512  # clients remembered at once; the oldest is forgotten

    def __init__(self, selector: Selector, listener: socket.socket, target: tuple[str, int]) -> None:
        self.selector, self.listener, self.target = selector, listener, target
        self.clients: dict[tuple[str, int], socket.socket] = {}
        selector.register(listener, selectors.EVENT_READ, self.take)

    def take(self, events: int) -> None:
        """A datagram from a client."""
        data, client = self.listener.recvfrom(CHUNK)
        if client not in self.clients:
            if len(self.clients) >= self.MOST:
                oldest = self.clients.pop(next(iter(self.clients)))
                self.selector.unregister(oldest)
                oldest.close()
            far = socket.socket(family(self.target), socket.SOCK_DGRAM)
            far.setblocking(False)
            far.connect(self.target)
            self.clients[client] = far
            self.selector.register(far, selectors.EVENT_READ, lambda events: self.answer(far, client))
        try:
            self.clients[client].send(data)
        except OSError:  # nobody listens inside: a datagram may be lost
            pass

    def answer(self, far: socket.socket, client: tuple[str, int]) -> None:
        """A datagram back."""
        try:
            self.listener.sendto(far.recv(CHUNK), client)
        except OSError:
            pass


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
