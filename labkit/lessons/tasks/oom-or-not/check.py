"""Top floor: the check of oom-or-not.

Owns: five ends of a program, in random order, in one cgroup that remembers all of them.
Read: Documentation/admin-guide/cgroup-v2.rst on memory.events; wait(2).
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from labkit.kernel.syscalls import clone3
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

LIMIT = 24 << 20  # bytes
HOW = {
    "eaten": "the kernel killed it for want of memory",
    "shot": "somebody sent SIGKILL, and there was memory enough",
    "shot again": "somebody sent SIGKILL; the kernel had killed another one for want of memory, some time before",
    "says 137": "it ended by itself, with exit(137)",
    "lost a child": "a child of it was killed for want of memory, and it ended by itself with another status",
}


def check(verdict: Callable[[Path, Callable[[], int]], object], lab: Ground) -> None:
    """Let programs end in each way, and compare what is said about them with what was done to them."""
    group = lab.cgroup() / lab.token()
    group.mkdir()
    (group / "memory.max").write_text(str(LIMIT))
    if (group / "memory.swap.max").exists():
        (group / "memory.swap.max").write_text("0")
    status = lab.number(3, 99)
    middle = ["eaten", "says 137", "lost a child"]
    random.shuffle(middle)
    caller = lab.child("caller")
    for end in ["shot", *middle, "shot again"]:
        said = caller.do(verdict, group, beginning(str(group), end, status))
        expected = {"eaten": "out of memory", "says 137": 137, "lost a child": status}.get(end, "killed")
        if said != expected:
            raise Wrong(f"verdict() says {said!r}, and not {expected!r}: {HOW[end]}")


def beginning(group: str, end: str, status: int) -> Callable[[], int]:
    """A start() whose program will end in this way."""

    def eat() -> None:
        kept = bytearray()
        while len(kept) < 4 * LIMIT:
            kept += b"x" * (1 << 20)

    def start() -> int:
        folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        pid = clone3(0, cgroup_fd=folder)
        os.close(folder)
        if pid:
            return pid
        try:
            if end == "eaten":
                eat()
            if end.startswith("shot"):
                os.kill(os.getpid(), signal.SIGKILL)
            if end == "lost a child":
                if (child := os.fork()) == 0:
                    eat()
                os.waitpid(child, 0)
                os._exit(status)
            os._exit(137)
        finally:
            os._exit(1)

    return start
