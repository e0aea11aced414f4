"""Floor 3: the process that waits, warm, for commands of `labkit-runtime` (labkit.runtime.warm).

Owns: one thread, with all of the runtime imported and nothing else; it forks once for each command, and the fork is the
command: its words, its folder, its streams, its exit status.  Each fork copies what it writes to, so what is not
needed is not imported: sockets by their C half, which has no recv_fds.

Read: fork(2); unix(7) on SCM_RIGHTS and SOCK_SEQPACKET; pidfd_open(2).
"""

from __future__ import annotations

import _socket
import gc
import os
import select
import struct
import sys

from labkit import leanjson
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, NoReturn

LONGEST = 1 << 17  # bytes of one request
STREAMS = 4  # descriptors that come with one: standard input, output, error, and where the answer goes
# What the verbs import when they are first asked is imported once, before.
MODULES = ("runtime.life.command", "runtime.life.verbs", "runtime.life.update", "runtime.life.events",
           "runtime.become.compiled", "kernel.cgroups.devices", "kernel.seccomp.compiler",
           "kernel.seccomp.load")  # fmt: skip


def main() -> NoReturn:
    """Be the helper: import everything, and fork for each request until nobody can ask any more.

    Its words: the descriptor of the line to whoever asks, and what Python's -c has to run to be labkit-runtime.
    """
    line = _socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(line.fileno(), False)
    for name in MODULES:
        __import__(f"labkit.{name}")
    gc.collect()
    gc.freeze()
    gc.disable()
    line.send(b"\0")
    poll = select.poll()
    poll.register(line, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}  # the process's descriptor: its pid, and where its status goes
    while True:
        for fd, _ in poll.poll():
            if fd == line.fileno():
                pidfd, *of = _begin(line)
                running[pidfd] = (of[0], of[1])
                poll.register(pidfd, select.POLLIN)
            else:
                poll.unregister(fd)
                _ended(fd, *running.pop(fd))


def _begin(line: _socket.socket) -> tuple[int, int, int]:
    """Take a request and fork for it; without one, end."""
    form = f"{STREAMS}i"
    space = _socket.CMSG_SPACE(struct.calcsize(form))
    data, ancillary, *_ = line.recvmsg(LONGEST, space, _socket.MSG_CMSG_CLOEXEC)
    if not data:
        os._exit(0)
    ((_, _, rights),) = ancillary
    fds = struct.unpack(form, rights)
    pid = os.fork()
    if pid == 0:
        line.close()
        _be(leanjson.loads(data), fds[:-1])
    for fd in fds[:-1]:
        os.close(fd)
    return os.pidfd_open(pid), pid, fds[-1]


def _be(request: dict[str, Any], streams: tuple[int, ...]) -> NoReturn:
    """The fork: the command itself."""
    status = 1
    try:
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(request["folder"])
        # What starts itself again from a sealed file (labkit.runtime.become.sealed) starts as this command.
        sys.orig_argv[1:] = [sys.orig_argv[1], "-c", sys.argv[2], *request["words"]]
        status = sys.modules["labkit.runtime.life.command"].main(request["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _ended(pidfd: int, pid: int, answer: int) -> None:
    """Take a command away, and tell who waits for it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.write(answer, str(code if code >= 0 else 128 - code).encode())
    except BrokenPipeError:
        pass  # nobody waits
    os.close(pidfd)
    os.close(answer)
