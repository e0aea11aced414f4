"""Floor 1: the loopback device of the network namespace that the caller is in.

Owns: turning it on.  A new network namespace has one, and it is down.  This is the old interface, an ioctl on any
socket: one call, where rtnetlink (labkit.kernel.rtnetlink) needs a message and an answer.

Read: netdevice(7) on SIOCGIFFLAGS and SIOCSIFFLAGS, network_namespaces(7).
"""

from __future__ import annotations

import os

from labkit import leanctypes as ctypes
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


class Request(ctypes.Structure):
    """struct ifreq with its flags: 40 bytes, of which the name has 16."""

    _fields_ = [("name", ctypes.c_char * 16), ("flags", ctypes.c_short), ("rest", ctypes.c_char * 22)]


def up() -> None:
    """Turn `lo` on. Raises OSError."""
    socket = call("socket", C.AF_INET, C.SOCK_DGRAM | os.O_CLOEXEC, 0)  # SOCK_CLOEXEC has O_CLOEXEC's number
    try:
        request = Request(b"lo")
        call("ioctl", socket, C.SIOCGIFFLAGS, request)
        request.flags |= C.IFF_UP
        call("ioctl", socket, C.SIOCSIFFLAGS, request)
    finally:
        os.close(socket)
