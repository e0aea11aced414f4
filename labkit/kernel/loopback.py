"""Floor 1: the loopback device of the network namespace that the caller is in.

Owns: turning it on.  A new network namespace has one, and it is down.  This is the old interface, an ioctl on any
socket: one call, where rtnetlink (labkit.kernel.rtnetlink) needs a message and an answer.

Read: netdevice(7) on SIOCGIFFLAGS and SIOCSIFFLAGS, network_namespaces(7).
"""

from __future__ import annotations

import os

from labkit import leanctypes as ctypes
from labkit.kernel import constants as C
from labkit.kernel import flagwords
from labkit.kernel.syscalls import call


class Request(ctypes.Structure):
    """struct ifreq with its flags: 40 bytes, of which the name has 16."""

    _fields_ = [("name", ctypes.c_char * 16), ("flags", ctypes.c_short), ("rest", ctypes.c_char * 22)]

    def __str__(self) -> str:
        name = self.name.decode(errors="replace")
        return f'{{ifr_name="{name}", ifr_flags={flagwords.flags("IFF_", self.flags & 0xFFFF) or "0"}}}'


def up() -> None:
    """Turn `lo` on. Raises OSError."""
    socket = call("socket", C.AF_INET, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0)
    try:
        found = Request(b"lo")
        call("ioctl", socket, C.SIOCGIFFLAGS, found)
        # One of its own: a recording shows a structure as it is when somebody reads the recording.
        call("ioctl", socket, C.SIOCSIFFLAGS, Request(b"lo", found.flags | C.IFF_UP))
    finally:
        os.close(socket)
