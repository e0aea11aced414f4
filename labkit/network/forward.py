"""Floor 2: the forwarder: bytes from a listening socket of the machine into a container.

    python -m labkit.network.forward LIFELINE PROTOCOL:FD:PORT:ADDRESS ...

Owns: the loopback's way to published ports, which DNAT cannot serve: a packet from
127.0.0.1 may not leave the machine.  Docker runs a docker-proxy for the same reason.
One process a container, one thread, one loop.  It serves many, so no socket's bad moment may end
it: who comes while no file is to be had waits in the listener's queue.

Read: epoll(7), tcp(7), accept(2) on EMFILE; ip-sysctl.rst on route_localnet.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable

from labkit.kernel import process
from labkit.network.dns_loop import READ, WRITE, Loop

CHUNK = 65536
OUT_OF_FILES = 0.2  # seconds until the next accept when no file was to be had


def main(argv: list[str]) -> int:
    """Serve until killed."""
    lifeline, *words = argv
    if not os.read(int(lifeline), 1):  # the starter died before it wrote us into the ledger
        return 1
    os.close(int(lifeline))
    process.set_title("labkit-forward")
    loop = Loop()
    for word in words:
        protocol, fd, port, address = word.split(":", 3)
        listener = socket.socket(fileno=int(fd))
        listener.setblocking(False)
        serve = TcpListener if protocol == "tcp" else UdpRelay
        serve(loop, listener, (address, int(port)))
    while True:
        loop.once()


def family(target: tuple[str, int]) -> socket.AddressFamily:
    """Of the address that is led to."""
    return socket.AF_INET6 if ":" in target[0] else socket.AF_INET


class TcpListener:
    """Accepts, and joins each connection to a new one into the container."""

    def __init__(self, loop: Loop, listener: socket.socket, target: tuple[str, int]) -> None:
        self.loop, self.listener, self.target = loop, listener, target
        self.listen()

    def listen(self) -> None:
        """Take those who come, from now on."""
        self.loop.watch(self.listener, READ, self.accept)

    def accept(self, events: int) -> None:
        """One more connection."""
        opened: list[socket.socket] = []
        try:
            # The way in first: whoever cannot have one yet stays in the queue, and is not hung up on.
            far = socket.socket(family(self.target))
            opened.append(far)
            near, _ = self.listener.accept()
            opened.append(near)
        except OSError as error:
            close_all(self.loop, opened)
            if not isinstance(error, BlockingIOError):  # the listener would stay ready, and this loop busy
                self.loop.watch(self.listener, 0, self.accept)
                self.loop.later(OUT_OF_FILES, self.listen)
            return
        try:
            for end in opened:
                end.setblocking(False)
            try:
                far.connect(self.target)
            except BlockingIOError:
                pass
            Pair(self.loop, near, far)
        except OSError:
            close_all(self.loop, opened)


def close_all(loop: Loop, ends: Iterable[socket.socket]) -> None:
    """Stop watching, and close."""
    for end in ends:
        loop.close(end)


class Pair:
    """Two connected sockets; what comes out of one goes into the other, as fast as that takes it."""

    def __init__(self, loop: Loop, near: socket.socket, far: socket.socket) -> None:
        self.loop = loop
        self.ends = (near, far)
        self.closed = False
        self.waiting = {near: b"", far: b""}  # bytes that this end has not taken yet
        self.finished: set[socket.socket] = set()  # ends that have said all they had to say
        self.handlers: dict[socket.socket, Callable[[int], None]] = {
            near: lambda events: self.act(near, far, events),
            far: lambda events: self.act(far, near, events),
        }
        loop.watch(near, READ, self.handlers[near])
        loop.watch(far, READ | WRITE, self.handlers[far])

    def act(self, end: socket.socket, other: socket.socket, events: int) -> None:
        """Take what `end` says, give it what waits for it."""
        if self.closed:  # the other end's event, in the same round, has hung up on both
            return
        try:
            self.move(end, other, events)
            self.update()
        except OSError:  # reset, refused: both ends hear of it
            self.close()

    def move(self, end: socket.socket, other: socket.socket, events: int) -> None:
        """As much as the two can say and take now."""
        try:
            if events & WRITE:
                self.flush(end)
            if events & READ and not self.waiting[other]:
                data = end.recv(CHUNK)
                if data:
                    self.waiting[other] = data
                else:
                    self.finished.add(end)
                self.flush(other)
        except BlockingIOError:
            pass

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
            reads = end not in self.finished and not self.waiting[other]
            self.loop.watch(end, READ * reads | WRITE * bool(self.waiting[end]), self.handlers[end])

    def close(self) -> None:
        """Hang up on both."""
        self.closed = True
        close_all(self.loop, self.ends)


class UdpRelay:
    """Each client gets a socket of its own into the container, so that answers find back."""

    MOST = 512  # clients remembered at once; the oldest is forgotten

    def __init__(self, loop: Loop, listener: socket.socket, target: tuple[str, int]) -> None:
        self.loop, self.listener, self.target = loop, listener, target
        self.clients: dict[tuple[str, int], socket.socket] = {}
        loop.watch(listener, READ, self.take)

    def take(self, events: int) -> None:
        """A datagram from a client."""
        try:
            data, client = self.listener.recvfrom(CHUNK)
            far = self.clients.get(client) or self.open(client)
            far.send(data)
        except OSError:  # a wrong checksum, no file to be had, nobody inside: a datagram may be lost
            pass

    def open(self, client: tuple[str, int]) -> socket.socket:
        """A way into the container for one more client; where there are too many, the oldest gives way."""
        if len(self.clients) >= self.MOST:
            self.forget()
        try:
            far = socket.socket(family(self.target), socket.SOCK_DGRAM)
        except OSError:
            if not self.clients:
                raise
            self.forget()
            far = socket.socket(family(self.target), socket.SOCK_DGRAM)
        try:
            far.setblocking(False)
            far.connect(self.target)
            self.loop.watch(far, READ, lambda events: self.answer(far, client))
        except OSError:
            self.loop.close(far)
            raise
        self.clients[client] = far
        return far

    def forget(self) -> None:
        """The client that came first."""
        self.loop.close(self.clients.pop(next(iter(self.clients))))

    def answer(self, far: socket.socket, client: tuple[str, int]) -> None:
        """A datagram back."""
        try:
            self.listener.sendto(far.recv(CHUNK), client)
        except OSError:
            pass


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
