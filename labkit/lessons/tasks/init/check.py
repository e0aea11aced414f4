"""Top floor: the check of init.

Owns: a program that leaves an orphan behind and waits for SIGTERM, and what its process 1 must do about both.
Read: pid_namespaces(7), wait(2), proc_pid_stat(5) on the state Z.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel.syscalls import clone3
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import container as see

# $1 a folder, $2 the status to end with.  The subshell ends at once, and its sleep is an orphan.
PROGRAM = """
trap 'echo got > "$1/got"; exit $2' TERM
(sleep 0.2 & echo $! > "$1/orphan")
echo $$ > "$1/ready"
while :; do sleep 0.1; done
"""
SECONDS = 10.0
PATIENCE = 4.0  # seconds for what a right answer does at once; an emulated machine is slow


def check(be_init: Callable[[list[str]], int], lab: Ground) -> None:
    """Watch process 1 and its family from outside, send it SIGTERM, wait for its status."""
    folder, status = lab.folder(), lab.number(3, 99)
    maker = lab.child("maker", leaves=True)
    first = maker.do(begin, be_init, ["sh", "-c", PROGRAM, "program", str(folder), str(status)])
    ready = folder / "ready"
    lab.until(lambda: (ready.exists() and ready.read_text().strip()) or not alive(first), SECONDS,
              "the program did not start")  # fmt: skip
    if not ready.exists():
        raise Wrong("process 1 ended before the program had begun")
    program = outside(first, int(ready.read_text()))
    orphan = int((folder / "orphan").read_text())
    lab.until(lambda: not alive(first) or not running(first, orphan), SECONDS, "the orphan did not end")
    # Dead, it stays in the table until process 1 asks for it; give it time.
    try:
        lab.until(lambda: not alive(first) or not known(first, orphan), PATIENCE)
    except Wrong:
        raise Wrong(f"process {outside(first, orphan)}, an orphan, has ended and is now a zombie that nobody takes in: "
                    f"its parent is process 1 of the namespace, {first} here") from None  # fmt: skip
    still = time.monotonic() + 0.5  # an end that the orphan's end has brought about takes a moment
    while alive(first) and time.monotonic() < still:
        time.sleep(0.01)
    if not alive(first):
        raise Wrong("process 1 ended while the program still ran, and took it along: "
                    "the end of an orphan is not the end of the program")  # fmt: skip
    terminate(first, program, lambda: (folder / "got").exists())
    if not (folder / "got").exists():
        raise Wrong("process 1 ended at SIGTERM, and the program with it, without having been asked")
    compare(maker.do(ended, first), status, f"ended with status {status}")
    # And a program that SIGTERM ends. It takes the mask as it gets it, where a shell clears it.
    second = maker.do(begin, be_init, ["sleep", "1000"])
    lab.until(lambda: not alive(second) or inside_of(second), SECONDS, "the second program did not start")
    terminate(second, inside_of(second), lambda: False)
    compare(maker.do(ended, second), 128 + signal.SIGTERM, f"was ended by signal {signal.SIGTERM:d}")


def terminate(first: int, program: int, seen: Callable[[], bool]) -> None:
    """Send SIGTERM to process 1 until the program has `seen` it, or process 1 has ended."""
    os.kill(first, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while alive(first) and not seen():
        if time.monotonic() > deadline:
            if int(see.status(program)["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1:
                raise Wrong(f"SIGTERM is blocked in the program (process {program}): "
                            "execve passes the mask of blocked signals on")  # fmt: skip
            raise Wrong(f"SIGTERM came to process 1 and went no further: the program (process {program}) "
                        "has not seen it")  # fmt: skip
        time.sleep(0.01)


def compare(seen: int, expected: int, how: str) -> None:
    if seen != expected:
        raise Wrong(f"the program {how}, and process 1 with {seen} instead of {expected}")


def begin(be_init: Callable[[list[str]], int], words: list[str]) -> int:
    """In a child: make a pid namespace whose process 1 calls `be_init`; its pid."""
    pid = clone3(C.CLONE_NEWPID)
    if pid:
        return pid
    status = 1
    try:
        status = be_init(words)
    finally:
        os._exit(status & 0xFF if isinstance(status, int) else 1)


def ended(pid: int) -> int:
    """In a child: wait for the process; its exit status, as the parent is told it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def alive(pid: int) -> bool:
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """One letter; empty when nobody has that number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def outside(first: int, inside: int) -> int:
    """The pid here of the process that has the number `inside` in the namespace of `first`; 0 when there is none."""
    for child in Path(f"/proc/{first}/task/{first}/children").read_text().split() if state(first) else []:
        try:
            if see.pids_inside(int(child))[-1] == inside:
                return int(child)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return 0


def inside_of(first: int) -> int:
    """The child of process 1 that has become a `sleep`, as it is numbered here; 0 when there is none yet."""
    for child in Path(f"/proc/{first}/task/{first}/children").read_text().split() if state(first) else []:
        if alive(int(child)) and Path(f"/proc/{child}/comm").read_text() == "sleep\n":
            return int(child)
    return 0


def known(first: int, inside: int) -> bool:
    return outside(first, inside) != 0


def running(first: int, inside: int) -> bool:
    return alive(outside(first, inside))
