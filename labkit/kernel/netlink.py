"""Floor 1: netlink messages: bytes out, bytes in, errors in words.

Owns: the message layer: headers, attributes, acknowledgements, and the kernel's own
explanation of an error (the extended acknowledgement, Linux 4.12).  What is asked with
it is in labkit.kernel.rtnetlink.

Read: netlink(7), include/uapi/linux/netlink.h, Documentation/userspace-api/netlink/intro.rst.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_EXCL = 0x200
NLM_F_REPLACE = 0x100
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLA_TYPE_MASK = 0x3FFF  # the two highest bits say "nested" and "network byte order"


class Message(NamedTuple):
    """One message: its type and what follows the header."""

    type: int
    payload: bytes


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """One attribute, padded to four bytes; text ends in a null byte, numbers are 32 bits wide."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data`, in order; one whose length cannot be true ends them."""
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & NLA_TYPE_MASK, data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def messages(data: bytes) -> Iterator[tuple[Message, int]]:
    """The messages in one datagram, each with its flags."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            return
        yield Message(kind, data[at + HEADER.size : at + length]), flags
        at += (length + 3) & ~3


class Netlink:
    """A socket to the kernel's routing subsystem, in the network namespace it was opened in."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self.socket.bind((0, 0))
        # The explanation comes with an error, and our own message is not sent back in it.
        self.socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, kind: int, payload: bytes, *, flags: int = 0, what: str) -> list[Message]:
        """Send one request and wait for its acknowledgement or the end of its dump.

        what -- the request in words, for the error.
        Raises OSError with the errno and the kernel's explanation.
        """
        self._sequence += 1
        if flags & NLM_F_DUMP != NLM_F_DUMP:
            flags |= NLM_F_ACK
        length = HEADER.size + len(payload)
        self.socket.send(HEADER.pack(length, kind, flags | NLM_F_REQUEST, self._sequence, 0) + payload)
        answers: list[Message] = []
        while True:
            for message, its_flags in messages(self.socket.recv(1 << 17)):
                if message.type == NLMSG_ERROR:
                    _raise_if_error(message.payload, its_flags, what)
                    return answers
                if message.type == NLMSG_DONE:
                    return answers
                answers.append(message)


def _raise_if_error(payload: bytes, flags: int, what: str) -> None:
    (code,) = struct.unpack_from("=i", payload)
    if code == 0:
        return
    words = os.strerror(-code)
    if flags & NLM_F_ACK_TLVS:
        # With a capped acknowledgement only the header of our request stands before them.
        for kind, value in attributes(payload[4 + HEADER.size :]):
            if kind == NLMSGERR_ATTR_MSG:
                words += f"; the kernel says: {value.rstrip(bytes(1)).decode(errors='replace')}"
    raise OSError(-code, f"{what}: {words}")
