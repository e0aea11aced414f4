"""Top floor: the check of let-go.

Owns: a process that waits as the runtime's does, one that was killed while it waited, and the question whether the
program began.

Read: fifo(7) on opening with O_NONBLOCK; the OCI runtime specification, runtime.md, "Start".
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

SECONDS = 10.0


def check(start: Callable[[str], Any], lab: Ground) -> None:
    """Start one that waits; start it again; start one that has been killed, and one that never was."""
    folder = lab.folder()
    fifo, ran = folder / "fifo", folder / "ran"
    waiting(lab, fifo, ran)
    if not lab.call(start, str(fifo)):
        raise Wrong("a process waited, and it did not say True")
    lab.until(ran.exists, SECONDS, "it said True, and the program did not begin")
    if lab.call(start, str(fifo)):
        raise Wrong("it said True of a container that was started before")
    if fifo.exists():
        raise Wrong("the FIFO is still there: that is how `state` sees that a container was not started yet")
    dead = folder / "dead"
    waiting(lab, dead, folder / "never", kill=True)
    if lab.call(start, str(dead)):
        raise Wrong("the process had been killed while it waited, and it said True")
    if lab.call(start, str(folder / "none")) or (folder / "none").exists():
        raise Wrong("there was no such FIFO, and it said True, or made a file of that name")


def waiting(lab: Ground, fifo: Path, ran: Path, *, kill: bool = False) -> None:
    """A process that waits at a new FIFO, and leaves a file behind when it goes on; or was killed before that."""
    os.mkfifo(fifo)
    pid = lab.child(fifo.name).do(hold, str(fifo), str(ran))
    lab.until(lambda: any(one == str(fifo) for one in opened(pid)), SECONDS, "the process to be started does not wait")
    if kill:
        os.kill(pid, signal.SIGKILL)
        lab.until(lambda: not opened(pid), SECONDS, "a process that was killed still has files")


def hold(fifo: str, ran: str) -> int:
    """In a child: fork the process that waits, as the runtime's does; its pid."""
    pid = os.fork()
    if pid == 0:
        line = os.open(fifo, os.O_RDWR)
        os.read(line, 1)
        Path(ran).touch()
        os._exit(0)
    return pid


def opened(pid: int) -> list[str]:
    """The files that a process has open; none when it is gone."""
    try:
        return [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []
