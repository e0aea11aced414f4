"""Reading floor: the process that visits network namespaces in the reader's stead.

Owns: its two ways of being: forked for one question where the reader has one thread, a program
that is asked again and again where it has several (a notebook) or reads often (a live view);
and the messages between them: a length of four bytes, then the value in marshal's form.

Read: setns(2) (it moves one thread), pipe(7), the module marshal.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.kernel import syscalls
from labkit.observe import networks
from labkit.observe.networks import Place, Plain
from labkit.observe.processes import Remembered

if TYPE_CHECKING:
    import subprocess

TITLE = "labkit-visitor"
PATIENCE = 20.0  # seconds for an answer; a dump takes milliseconds, nft with thousands of rules a second
LENGTH = 4
TREE = Path(__file__).resolve().parents[2]
# Isolated and without site packages: it starts in half the time, and the caller's folder cannot get in its way.
START = f"import sys; sys.path.insert(0, {str(TREE)!r}); from labkit.observe import visitor; visitor.main()"
PROGRAM = [sys.executable, "-I", "-S", "-c", START]


class Visitor:
    """A program that stays until it is closed, or until this process ends.

    with Visitor() as visitor: take(scope, visitor=visitor)
    """

    def __init__(self) -> None:
        self.program: subprocess.Popen[bytes] | None = None
        self.remembered: Remembered = {}  # for the reader's own surveys

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process; 0 before the first question."""
        return self.program.pid if self.program else 0

    def ask(self, places: list[Place], rules: bool = False) -> list[Plain]:
        """What `networks.visit` finds. Raises LabError when the program ends or is silent for PATIENCE seconds."""
        if self.program is None or self.program.poll() is not None:
            import subprocess  # not above: the program itself does without, and starts sooner

            self.close()
            self.program = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.program.stdin is not None and self.program.stdout is not None
        try:
            send(self.program.stdin.fileno(), (places, rules))
            return _answer(self.program.stdout.fileno())
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise _failed(error) from error

    def close(self) -> None:
        """End the program; closing twice is fine."""
        program, self.program = self.program, None
        if program is not None:
            program.kill()
            program.communicate()


def ask(places: list[Place], rules: bool = False) -> list[Plain]:
    """One question: in this process if it stays in its own namespace, else in one that ends with the answer.

    Raises LabError when that process fails.
    """
    if {inode for inode, _ in places} <= {os.stat("/proc/self/ns/net").st_ino}:
        return networks.visit(places, rules)
    if syscalls.threads() > 1:  # a fork would have one of its threads, and the locks of all
        with Visitor() as visitor:
            return visitor.ask(places, rules)
    return _forked(places, rules)


def _forked(places: list[Place], rules: bool) -> list[Plain]:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(ours)
            _reply(theirs, places, rules)
            status = 0
        finally:
            os._exit(status)
    os.close(theirs)
    try:
        return _answer(ours)
    except (OSError, EOFError, TimeoutError) as error:
        os.kill(pid, signal.SIGKILL)
        raise _failed(error) from error
    finally:
        os.close(ours)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # this process ignores SIGCHLD: the kernel has reaped it


def _failed(error: BaseException) -> LabError:
    why = str(error) or type(error).__name__
    return LabError("the networks cannot be read", why=f"the process that visits them failed: {why}", next="again")


def _reply(fd: int, places: list[Place], rules: bool) -> None:
    try:
        answer: tuple[list[Plain], str] = networks.visit(places, rules), ""
    except OSError as error:
        answer = [], str(error)
    send(fd, answer)


def _answer(fd: int) -> list[Plain]:
    found: list[Plain]
    found, failure = receive(fd, PATIENCE)
    if failure:
        raise OSError(failure)
    return found


def send(fd: int, value: Any) -> None:
    """Write one message. Raises BrokenPipeError when nobody reads."""
    data = marshal.dumps(value)
    data = len(data).to_bytes(LENGTH, "big") + data
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int, patience: float | None = None) -> Any:
    """Read one message. Raises EOFError at the end, TimeoutError after `patience` seconds of silence."""
    return marshal.loads(_exactly(fd, int.from_bytes(_exactly(fd, LENGTH, patience), "big"), patience))


def _exactly(fd: int, count: int, patience: float | None) -> bytes:
    parts, left = [], count
    while left:
        if patience is not None:
            waiter = select.poll()  # not select(): it knows no descriptor above 1023
            waiter.register(fd, select.POLLIN)
            if not waiter.poll(patience * 1000):
                raise TimeoutError(f"no answer in {patience:g} s")
        part = os.read(fd, min(left, 1 << 20))
        if not part:
            raise EOFError("it ended without an answer")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def main() -> None:
    """The program: answer questions from standard input until it ends."""
    from labkit.kernel import process

    process.set_title(TITLE)
    # ^C at the terminal is the asker's to handle; the end of its questions ends this too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            places, rules = receive(0)
        except EOFError:
            return
        _reply(1, places, rules)
