"""Floor 3: hooks: programs that config.json wants run at six moments of a life.

Owns: running one with the container's state on its standard input, its time-out, and what its failure says.

Read: the OCI runtime specification, config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import os
import select
from time import monotonic

from labkit import leanjson
from labkit.errors import LabError
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, signal
from labkit.runtime.become.execute import default_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OF_THE_MAKER = ("prestart", "createRuntime")  # the runtime's side runs them, between the mounts and the pivot
SAID = 2000  # characters of a failed hook's output that its error shows


def run(config: dict[str, Any], kind: str, state: dict[str, Any], folder: str = "", *,
        failed: Callable[[LabError], None] | None = None) -> None:  # fmt: skip
    """Run every hook of a kind, in order, in `folder`. Raises LabError at the first that fails.

    failed -- told of each that fails, instead: the next ones run all the same (poststop: runtime.md, "Lifecycle")
    folder -- the bundle, where runc runs them; where there is none (any more), or inside: where this process is.
    """
    for number, hook in enumerate(config.get("hooks", {}).get(kind, ())):
        try:
            one(hook, f"hooks.{kind}[{number}]", state, folder)
        except LabError as error:
            if failed is None:
                raise
            failed(error)


def wanted(config: dict[str, Any], kinds: tuple[str, ...]) -> bool:
    """Whether there is any hook of these kinds."""
    return any(config.get("hooks", {}).get(kind) for kind in kinds)


def one(hook: dict[str, Any], place: str, state: dict[str, Any], folder: str = "") -> None:
    """Run one hook to its end. Raises LabError with what it printed; after its time-out it is killed.

    A process of its own is made by hand: the subprocess module costs 10 ms to import, on every start.
    """
    inward, outward = os.pipe()
    heard, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(inward, 0)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.setsid()
            default_signals()
            if os.path.isdir(folder):
                os.chdir(folder)
            environment = dict(item.partition("=")[::2] for item in hook.get("env", ()))
            os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
        except OSError as error:
            os.write(2, f"{error.strerror} (errno {error.errno})".encode())
        finally:
            os._exit(127)
    os.close(inward)
    os.close(said)
    pidfd = call("pidfd_open", pid, 0)
    try:
        timeout = hook.get("timeout")
        output, ended = _converse(outward, leanjson.dumps(state).encode(), heard, pidfd, timeout)
        if not ended:
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
        os.close(heard)
    if not ended:
        raise LabError(f"{place} ({hook['path']}) did not end within {timeout} s", status=1,
                       why=output or "it printed nothing", next="a longer timeout, or a shorter hook")  # fmt: skip
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise LabError(f"{place} ({hook['path']}) failed with {code}", why=output or "it printed nothing", status=1)


def _converse(outward: int, document: bytes, heard: int, pidfd: int, timeout: int | None) -> tuple[str, bool]:
    """Hand it the state, hear what it prints; what it printed last, and whether it ended in time.

    All in one loop: a hook need not read, and a state with many annotations is more than a pipe holds.
    """
    os.set_blocking(outward, False)
    poll = select.poll()
    for fd, event in ((pidfd, select.POLLIN), (heard, select.POLLIN), (outward, select.POLLOUT)):
        poll.register(fd, event)
    output, left_to_write = b"", document
    deadline = None if timeout is None else monotonic() + timeout
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - monotonic()) * 1000
            ready = dict(poll.poll(left))
            if not ready:
                return _text(output), False
            if outward in ready:
                left_to_write = _more(outward, left_to_write)
                if not left_to_write:
                    poll.unregister(outward)
                    os.close(outward)
                    outward = -1
            if heard in ready:
                part = os.read(heard, 65536)
                output = (output + part)[-4 * SAID :]
                if not part:
                    poll.unregister(heard)
            if pidfd in ready and heard not in ready:
                return _text(output), True
    finally:
        if outward >= 0:
            os.close(outward)


def _more(outward: int, document: bytes) -> bytes:
    """Write what goes in now; what is left. Nothing is, when nobody reads any more."""
    try:
        return document[os.write(outward, document) :]
    except BlockingIOError:
        return document
    except BrokenPipeError:
        return b""


def _text(output: bytes) -> str:
    return output.decode(errors="replace").strip()[-SAID:]
