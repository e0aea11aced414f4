"""Floor 3: warm starts: `labkit-runtime` from Python without a new interpreter for each container.

Owns: a helper process, single-threaded, with all of the runtime imported and nothing else; it forks once for each
command, and the fork is the command: its words, its folder, its streams, its exit status.  A notebook's process,
which has a dozen threads, cannot fork into a runtime itself (labkit.kernel.syscalls).

    with warm.Helper() as helper:
        status = helper("run", "one", cwd=bundle)

Read: fork(2); unix(7) on SCM_RIGHTS and SOCK_SEQPACKET.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from labkit.errors import LabError

LONGEST = 1 << 17  # bytes of one request
STREAMS = 4  # standard input, output, error, and the answer
# What the verbs import when they are first asked is imported once, before.
MODULES = ("runtime.life.command", "runtime.life.verbs", "runtime.life.update", "runtime.life.events",
           "runtime.become.compiled", "kernel.cgroups.devices", "kernel.seccomp.compiler",
           "kernel.seccomp.load")  # fmt: skip


class Helper:
    """A process that runs commands of `labkit-runtime` for this one; leaving the `with` ends it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [sys.executable, "-m", "labkit.runtime.warm", str(theirs.fileno())]
        self._child = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._line.recv(1)  # it is there when it says so: everything is imported

    @property
    def pid(self) -> int:
        """The helper's own process."""
        return self._child.pid

    def start(self, *words: str, cwd: str | Path = ".", streams: tuple[int, int, int] = (0, 1, 2)) -> Running:
        """Begin a command: its words, its folder, and the descriptors that become its standard streams.

        Raises LabError when the helper is gone.
        """
        answer, said = os.pipe()
        request = json.dumps({"words": words, "folder": os.path.abspath(cwd)}).encode()
        try:
            socket.send_fds(self._line, [request], [*streams, said])
        except OSError as error:
            os.close(answer)
            raise LabError("the helper for warm starts is gone", why=str(error), next="make another Helper") from error
        finally:
            os.close(said)
        return Running(answer)

    def __call__(self, *words: str, cwd: str | Path = ".", streams: tuple[int, int, int] = (0, 1, 2)) -> int:
        """Run a command to its end; its exit status. Raises LabError."""
        return self.start(*words, cwd=cwd, streams=streams).wait()

    def close(self) -> None:
        """End it; commands that run already go on. Twice is once."""
        self._line.close()
        self._child.wait()

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Running:
    """A command that has begun."""

    def __init__(self, answer: int) -> None:
        self._answer = answer

    def wait(self) -> int:
        """Its exit status, once; 128 + the number of a signal that ended it. Raises LabError without a helper."""
        with os.fdopen(self._answer, "rb") as pipe:
            text = pipe.read()
        if not text:
            raise LabError("the helper for warm starts ended before the command did", next="make another Helper")
        return int(text)


def main() -> NoReturn:
    """Be the helper: import everything, and fork for each request until nobody can ask any more."""
    line = socket.socket(fileno=int(sys.argv[1]))
    line.set_inheritable(False)
    for name in MODULES:
        importlib.import_module(f"labkit.{name}")
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


def _begin(line: socket.socket) -> tuple[int, int, int]:
    """Take a request and fork for it; without one, end."""
    data, fds, _, _ = socket.recv_fds(line, LONGEST, STREAMS, socket.MSG_CMSG_CLOEXEC)
    if not data:
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        line.close()
        _be(json.loads(data), fds[:-1])
    for fd in fds[:-1]:
        os.close(fd)
    return os.pidfd_open(pid), pid, fds[-1]


def _be(request: dict[str, Any], streams: list[int]) -> NoReturn:
    """The fork: the command itself."""
    status = 1
    try:
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(request["folder"])
        # What starts itself again from a sealed file (labkit.runtime.become.sealed) starts as this command.
        sys.orig_argv[1:] = ["-m", "labkit.runtime.life.command", *request["words"]]
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


if __name__ == "__main__":
    main()
