"""Floor 3: warm starts: `labkit-runtime` from Python without a new interpreter for each container.

Owns: the asking side: starting the helper (labkit.runtime.warm_process), handing it a command, waiting for its status.
A notebook's process, which has a dozen threads, cannot fork into a runtime itself (labkit.kernel.syscalls).

    with warm.Helper() as helper:
        status = helper("run", "one", cwd=bundle)

Read: fork(2); unix(7) on SCM_RIGHTS and SOCK_SEQPACKET.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

from labkit.errors import LabError
from labkit.runtime import program

MAIN = "from labkit.runtime.warm_process import main\nmain()\n"


class Helper:
    """A process that runs commands of `labkit-runtime` for this one; leaving the `with` ends it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [program.interpreter(), program.OPTIONS, "-c", program.code(MAIN),
                 str(theirs.fileno()), program.code()]  # fmt: skip
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
