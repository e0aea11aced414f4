"""Floor 3: the bus over which systemd is asked: the machine's, or the user's.

Owns: finding it, and saying who asks.  The bus compares that with what the kernel says of the socket (SO_PEERCRED).

Read: the D-Bus specification, "Authentication Protocol", EXTERNAL; user_namespaces(7) on who sees which number.
"""

from __future__ import annotations

import os
import socket

from jeepney.bus import get_bus
from jeepney.io.blocking import DBusConnection

from labkit.errors import Refused

PATIENCE = 30.0  # seconds for the bus, and systemd behind it, to do what they were asked for
FIRST_PIDS = 0xEFFFFFFC  # the inode of the machine's own pid namespace (include/linux/proc_ns.h)


def connected(rootless: bool) -> DBusConnection:
    """The bus of the machine, or of the user. Raises Refused where there is none, or systemd counts otherwise."""
    if os.stat("/proc/self/ns/pid").st_ino != FIRST_PIDS:
        raise Refused("the systemd driver cannot be had here", status=1,
                      why="this process is in a pid namespace of its own: the numbers that it would tell systemd are "
                      "other processes there",
                      next="--cgroup-manager cgroupfs")  # fmt: skip
    if rootless and "DBUS_SESSION_BUS_ADDRESS" not in os.environ and (run := os.environ.get("XDG_RUNTIME_DIR")):
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={run}/bus"
    try:
        return opened(get_bus("SESSION" if rootless else "SYSTEM"))
    except (OSError, KeyError, RuntimeError) as error:
        raise Refused("the systemd driver cannot be had here", status=1,
                      why=f"there is no D-Bus to ask systemd over: {error}",
                      next="--cgroup-manager cgroupfs") from error  # fmt: skip


def opened(address: str) -> DBusConnection:
    """A connection to the bus behind this socket, as the user that the bus sees. Raises Refused, OSError.

    By hand: jeepney says geteuid(), which in a user namespace (podman's) is 0, while the bus sees who made it, and
    believes nobody who says otherwise.
    """
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.settimeout(PATIENCE)
        peer.connect(address)
        peer.sendall(b"\0AUTH EXTERNAL %b\r\n" % str(outer_uid()).encode().hex().encode())
        answer = b""
        while not answer.endswith(b"\r\n") and (part := peer.recv(1024)):
            answer += part
        if not answer.startswith(b"OK "):
            raise Refused("the systemd driver cannot be had here", status=1,
                          why=f"the D-Bus at {address} does not take user {outer_uid()}: {answer.decode().strip()}",
                          next="--cgroup-manager cgroupfs")  # fmt: skip
        peer.sendall(b"BEGIN\r\n")
        peer.settimeout(None)
        return DBusConnection(peer)
    except BaseException:
        peer.close()
        raise


def outer_uid() -> int:
    """This user, as the user namespace above numbers it (user_namespaces(7)); in the machine's own, the same."""
    own = os.geteuid()
    with open("/proc/self/uid_map") as file:
        for inside, outside, count in (map(int, line.split()) for line in file):
            if inside <= own < inside + count:
                return outside + own - inside
    return own
