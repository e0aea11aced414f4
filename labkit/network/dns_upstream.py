"""Floor 2: questions that a network's name server passes on, and their answers.

Owns: which server is asked next and for how long one waits, by UDP as by TCP; that an
answer is believed only when it is to what was asked; and the limit on what is under way.

Read: RFC 5452 (whose answer to believe), RFC 7766 (TCP), resolv.conf(5) on timeout and attempts.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from labkit.network.dns_loop import READ, WRITE, Loop

PORT = 53
PATIENCE = 1.3  # seconds until the next server is asked too; the earlier one may still answer
TRIES = 3
GIVE_UP = 4.0  # seconds; those who ask begin again after 5
MOST = 128  # questions under way: with three sockets each they stay below the usual 1024 open files
UNWILLING = (dns.rcode.SERVFAIL, dns.rcode.REFUSED)  # another server may do better

Done = Callable[[bytes | None], None]


class Upstream:
    """The other servers: what is under way to them."""

    def __init__(self, loop: Loop, servers: Callable[[], list[str]]) -> None:
        self.loop, self.servers = loop, servers
        self.under_way = 0

    def ask(self, query: dns.message.Message, wire: bytes, *, datagram: bool, done: Done) -> None:
        """Pass `wire` on; `done` gets the answer for the asker, or None when nobody answered."""
        servers = self.servers()
        if not servers or self.under_way >= MOST:
            done(None)
            return
        self.under_way += 1

        def finish(reply: bytes | None) -> None:
            self.under_way -= 1
            done(reply)

        Errand(self.loop, query, wire, datagram, [servers[i % len(servers)] for i in range(TRIES)], finish).next_try()


class Errand:
    """One question: a socket for each server that was asked, and the first good answer."""

    def __init__(
        self, loop: Loop, query: dns.message.Message, wire: bytes, datagram: bool, servers: list[str], done: Done
    ) -> None:
        self.loop, self.query, self.datagram, self.done = loop, query, datagram, done
        self.number = os.urandom(2)  # nobody outside can guess it, nor the port that the kernel chooses
        self.original = wire[:2]
        self.wire = self.number + wire[2:]
        self.servers = servers
        self.sockets: list[socket.socket] = []
        self.fallback: bytes | None = None
        self.timers = [loop.later(GIVE_UP, self.give_up)]

    def next_try(self) -> None:
        """Ask the next server; when there is none left, wait for those that were asked."""
        while self.servers:
            server = self.servers.pop(0)
            try:
                (self.by_udp if self.datagram else self.by_tcp)(server)
            except OSError:  # no route, refused: the next
                continue
            if self.servers:
                self.timers.append(self.loop.later(PATIENCE, self.next_try))
            return
        if not self.sockets:
            self.give_up()

    def by_udp(self, server: str) -> None:
        """One datagram there, from a port of its own."""
        asked = _socket(server, socket.SOCK_DGRAM)
        try:
            asked.connect((server, PORT))
            asked.send(self.wire)
        except OSError:
            asked.close()
            raise
        self.sockets.append(asked)
        self.loop.watch(asked, READ, lambda events: self.take(asked))

    def take(self, asked: socket.socket) -> None:
        """A datagram back, or word that nobody listens there."""
        try:
            reply = asked.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            self.lost(asked)
            return
        self.judge(asked, reply)

    def by_tcp(self, server: str) -> None:
        """The same over a connection, where each message has its length before it."""
        asked = _socket(server, socket.SOCK_STREAM)
        try:
            asked.connect((server, PORT))
        except BlockingIOError:
            pass
        except OSError:
            asked.close()
            raise
        self.sockets.append(asked)
        TcpTalk(self, asked)

    def judge(self, asked: socket.socket, reply: bytes) -> bool:
        """Take an answer to this question; False for anything else, which is as if it had not come."""
        if not self.believable(reply):
            return False
        if reply[3] & 0x0F in UNWILLING and self.servers:
            self.fallback = reply
            self.lost(asked)
        else:
            self.finish(reply)
        return True

    def believable(self, reply: bytes) -> bool:
        """Whether it has our number and repeats our question."""
        if len(reply) < 12 or reply[:2] != self.number or not reply[2] & 0x80:
            return False
        try:
            said = dns.message.from_wire(reply, question_only=True).question
        except (dns.exception.DNSException, ValueError, struct.error):
            return False
        # Some servers leave the question out when they refuse.
        return said == self.query.question or (not said and reply[3] & 0x0F != dns.rcode.NOERROR)

    def lost(self, asked: socket.socket) -> None:
        """Nothing more will come from this one."""
        self.sockets.remove(asked)
        self.loop.close(asked)
        self.next_try()

    def give_up(self) -> None:
        """It took too long, or there is nobody left to ask."""
        self.finish(self.fallback)

    def finish(self, reply: bytes | None) -> None:
        """Put everything away and say what came, under the asker's number."""
        for timer in self.timers:
            timer.cancel()
        for asked in self.sockets:
            self.loop.close(asked)
        self.sockets, self.servers = [], []
        self.done(reply and self.original + reply[2:])


class TcpTalk:
    """One question over one connection."""

    def __init__(self, errand: Errand, asked: socket.socket) -> None:
        self.errand, self.asked = errand, asked
        self.out = struct.pack("!H", len(errand.wire)) + errand.wire
        self.come = b""
        errand.loop.watch(asked, WRITE, self.act)

    def act(self, events: int) -> None:
        """Send what is left of the question, then collect the answer."""
        try:
            if self.out:
                self.out = self.out[self.asked.send(self.out) :]
                self.errand.loop.watch(self.asked, WRITE if self.out else READ, self.act)
                return
            piece = self.asked.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self.come += piece
        length = int.from_bytes(self.come[:2], "big")
        whole = 2 <= len(self.come) >= 2 + length
        if whole and self.errand.judge(self.asked, self.come[2 : 2 + length]):
            return
        if whole or not piece:
            self.errand.lost(self.asked)


def _socket(server: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)
    made.setblocking(False)
    return made
