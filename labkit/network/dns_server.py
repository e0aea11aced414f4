"""Floor 2: the name server of one network: a process on the bridge's own address, port 53, UDP and TCP.

    python -m labkit.network.dns_server LIFELINE NETWORK PROTOCOL:FD ...

Owns: its sockets, who may ask, and the limits on connections and on time.  What a query gets
is labkit.network.dns_answer; questions for the wide world go by labkit.network.dns_upstream.

Read: RFC 7766 (DNS over TCP), RFC 5625 (what a proxy must keep as it is).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable

import dns.rcode

from labkit.kernel import process
from labkit.network import names
from labkit.network.dns_answer import Forward, decide, failure, fitted, refusal
from labkit.network.dns_loop import READ, WRITE, Loop, Timer
from labkit.network.dns_names import PlannedNames
from labkit.network.dns_upstream import Upstream

MOST_TALKS = 64  # TCP connections at once; one more ends the one that was silent longest
SILENCE = 10.0  # seconds that a TCP connection may be without a whole question
MOST_OPEN = 16  # questions of one connection that wait for an answer; the next one waits unread
MOST_BYTES = 65536  # of answers that a connection has not taken; then it must take some first
OUT_OF_FILES = 1.0  # seconds to wait before the next accept when none can be opened


def main(argv: list[str]) -> int:
    """Serve until killed."""
    lifeline, network, *words = argv
    if not os.read(int(lifeline), 1):  # the starter died before it wrote us into the ledger
        return 1
    os.close(int(lifeline))
    process.set_title("labkit-dns")
    loop = Loop()
    service = Service(loop, PlannedNames(network))
    for word in words:
        protocol, fd = word.split(":")
        listener = socket.socket(fileno=int(fd))
        listener.setblocking(False)
        (UdpListener if protocol == "udp" else TcpListener)(service, listener)
    while True:
        loop.once()


class Service:
    """What both protocols share: the network's names, and the way to other servers."""

    def __init__(self, loop: Loop, known: PlannedNames) -> None:
        self.loop, self.known = loop, known
        self.upstream = Upstream(loop, self.others)

    def others(self) -> list[str]:
        """The machine's own servers, without ourselves."""
        return [server for server in names.servers() if not self.known.is_gateway(server)]

    def serve(self, wire: bytes, client: str, *, datagram: bool, answer: Callable[[bytes | None], None]) -> None:
        """Call `answer` once: with the reply, or with None when there is none to give."""
        if not self.known.covers(client):
            # Another network's containers reach this address too: it is the machine's.
            answer(refusal(wire, dns.rcode.REFUSED) if len(wire) >= 12 and not wire[2] & 0x80 else None)
            return
        verdict = decide(wire, self.known.asked_by(client), datagram=datagram)
        if not isinstance(verdict, Forward):
            answer(verdict)
            return
        query, limit = verdict
        # From the machine itself: it may be a server that we would ask, and the question would go round for ever.
        # A network without a way out has none for names either: they could carry data.
        if self.known.is_gateway(client) or self.known.plan.internal:
            answer(failure(query, dns.rcode.REFUSED))
            return

        def passed_on(reply: bytes | None) -> None:
            answer(failure(query, dns.rcode.SERVFAIL) if reply is None else fitted(reply, query, limit))

        self.upstream.ask(query, wire, datagram=datagram, done=passed_on)


class UdpListener:
    """A datagram in, a datagram out."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self.service, self.listener = service, listener
        service.loop.watch(listener, READ, self.take)

    def take(self, events: int) -> None:
        """One question."""
        try:
            wire, client = self.listener.recvfrom(65535)
        except OSError:
            return

        def answer(reply: bytes | None) -> None:
            try:
                if reply is not None:
                    self.listener.sendto(reply, client)
            except OSError:  # it is gone, or its buffer is full: a datagram may be lost
                pass

        self.service.serve(wire, client[0], datagram=True, answer=answer)


class TcpListener:
    """Accepts, up to the limit."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self.service, self.listener = service, listener
        self.talks: dict[Talk, None] = {}  # the one that was silent longest first
        service.loop.watch(listener, READ, self.accept)

    def accept(self, events: int) -> None:
        """One more connection."""
        try:
            made, client = self.listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no file to be had: the listener would stay ready, and this loop busy
            self.service.loop.watch(self.listener, 0, self.accept)
            self.service.loop.later(OUT_OF_FILES, lambda: self.service.loop.watch(self.listener, READ, self.accept))
            return
        made.setblocking(False)
        if len(self.talks) >= MOST_TALKS:
            next(iter(self.talks)).close()
        Talk(self, made, client[0])


class Talk:
    """One TCP connection: questions and answers, each with its length before it."""

    def __init__(self, owner: TcpListener, peer: socket.socket, client: str) -> None:
        self.owner, self.peer, self.client = owner, peer, client
        self.come, self.out = b"", b""
        self.waiting = 0  # questions without an answer yet
        self.finished = False  # the peer has asked all that it wanted
        self.heard()
        self.timer: Timer = owner.service.loop.later(SILENCE, self.look)
        self.update()

    def heard(self) -> None:
        """Begin to count the silence anew, as the youngest of all."""
        self.last = time.monotonic()
        self.owner.talks.pop(self, None)
        self.owner.talks[self] = None

    def look(self) -> None:
        """Hang up on a peer that has been silent for long, else look again in time."""
        rest = self.last + SILENCE - time.monotonic()
        if rest <= 0:
            self.close()
        else:
            self.timer = self.owner.service.loop.later(rest, self.look)

    def act(self, events: int) -> None:
        """Take what has come, send what waits."""
        try:
            if events & WRITE:
                self.out = self.out[self.peer.send(self.out) :]
            if events & READ:
                piece = self.peer.recv(65535)
                self.come += piece
                self.finished = not piece
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self.update()

    def update(self) -> None:
        """Serve whole questions, and wait for what can be handled now."""
        while self.waiting < MOST_OPEN and len(self.out) < MOST_BYTES and len(self.come) >= 2:
            length = int.from_bytes(self.come[:2], "big")
            if len(self.come) < 2 + length:
                break
            wire, self.come = self.come[2 : 2 + length], self.come[2 + length :]
            self.heard()
            self.waiting += 1
            self.owner.service.serve(wire, self.client, datagram=False, answer=self.answer)
            if self.peer.fileno() < 0:
                return
        if self.finished and not self.waiting and not self.out:
            self.close()
            return
        reads = not self.finished and self.waiting < MOST_OPEN and not self.out
        self.owner.service.loop.watch(self.peer, READ * reads | WRITE * bool(self.out), self.act)

    def answer(self, reply: bytes | None) -> None:
        """One answer; none to a message that deserves none ends the connection."""
        self.waiting -= 1
        if self.peer.fileno() < 0:
            return
        if reply is None:
            self.close()
            return
        self.out += struct.pack("!H", len(reply)) + reply
        self.owner.service.loop.watch(self.peer, WRITE, self.act)

    def close(self) -> None:
        """Hang up."""
        self.owner.talks.pop(self, None)
        self.timer.cancel()
        self.owner.service.loop.close(self.peer)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
