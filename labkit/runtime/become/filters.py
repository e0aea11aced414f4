"""Floor 3: the seccomp filter goes on, as late as it can, since what comes after must pass it.

Owns: the two moments (root may load one at any time; without privileges to gain, anybody may, and then
it is the very last), and the listener's way: from the child, which alone has it and must not reach
the agent's socket, to the maker, and from there to the agent.

The child sends its listener over a socket (SCM_RIGHTS).  Where the filter passes sendmsg(2) itself on,
that call would wait for the agent, who waits for the listener: then the child writes the descriptor's
number, and the maker fetches it (pidfd_getfd(2), Linux 5.6).  write(2) is never passed on: the profile's
reading sees to that.

Read: seccomp(2), seccomp_unotify(2), pidfd_getfd(2); the OCI runtime specification, config-linux.md,
"The Container Process State".
"""

from __future__ import annotations

import os

from labkit import leanjson
from labkit.errors import LabError
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING
from labkit.runtime.become.ready import Filter, Ready

if TYPE_CHECKING:
    from socket import socket
    from typing import Any

FD_NAME = "seccompFd"  # what the specification calls the descriptor
SENT = b"sent"


def before_dropping(ready: Ready) -> int | None:
    """Load the filter while there is CAP_SYS_ADMIN, if the program may gain privileges. Returns the listener's fd."""
    if ready.filter is None or ready.process.get("noNewPrivileges"):
        return None
    return _load(ready.filter)


def at_last(ready: Ready) -> int | None:
    """Load the filter just before execve, if nobody may gain privileges any more. Returns the listener's fd."""
    if ready.filter is None or not ready.process.get("noNewPrivileges"):
        return None
    return _load(ready.filter)


def _load(wanted: Filter) -> int | None:
    from labkit.kernel.seccomp import load  # `ready` has imported it

    return load.load(wanted.program, wanted.flags, listen=wanted.listens)


def give(wanted: Filter, line: socket, fd: int) -> None:
    """The child's side: hand the listener to the maker over `line`, and keep none. Raises OSError."""
    if wanted.by_number:
        # By write(2), whatever it may have to wait for: nothing else of a socket's is safe.
        os.write(line.fileno(), str(fd).encode())
        return  # it stays open until execve: the maker has yet to fetch it
    line.sendmsg([SENT], [(1, 1, fd.to_bytes(4, "little"))])  # SOL_SOCKET, SCM_RIGHTS
    os.close(fd)


def take(line: socket, pid: int) -> int:
    """The maker's side: the listener of the process `pid` (as the maker counts). Raises LabError, OSError."""
    import socket as sockets

    data, fds, _, _ = sockets.recv_fds(line, 64, 1)
    if fds:
        return fds[0]
    if not data.isdigit():
        raise LabError("the container's process sent no seccomp listener", why="it ended before", status=1)
    process = call("pidfd_open", pid, 0)
    try:
        return call("pidfd_getfd", process, int(data), 0)  # close-on-exec
    finally:
        os.close(process)


def send_listener(wanted: Filter, state: dict[str, Any], pid: int, fd: int) -> None:
    """Send the listener to the socket that config.json names, with the container process's state.

    Called by the maker: the container's process could not reach the socket.  Raises LabError.
    """
    import socket as sockets

    document = {
        "ociVersion": state["ociVersion"],
        "fds": [FD_NAME],
        "pid": pid,
        "metadata": wanted.metadata,
        "state": state,
    }
    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_CLOEXEC) as line:
            line.connect(wanted.listener)
            sockets.send_fds(line, [leanjson.dumps(document).encode()], [fd])
    except OSError as error:
        raise LabError(f"cannot pass the seccomp listener to {wanted.listener}", why=str(error), status=1,
                       next="the agent that answers must listen there before the start") from error  # fmt: skip
