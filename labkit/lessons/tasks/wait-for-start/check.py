"""Top floor: the check of wait-for-start.

Owns: a process that holds, somebody who only looks, and the program that it becomes.
Read: fifo(7) on opening for reading and writing; the OCI runtime specification, runtime.md, "Start".
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

SECONDS = 10.0
MOMENT = 0.3  # for what a wrong answer does at once
PROGRAM = 'for one in /proc/$$/fd/*; do readlink "$one"; done > "$1/open"; echo $$ > "$1/ran"; exec sleep 1000'


def check(hold: Callable[[str, Callable[[], None]], Any], lab: Ground) -> None:
    """Look three times, as `state` does; then write, as `start` does."""
    folder = lab.folder()
    fifo, ran = folder / "fifo", folder / "ran"
    os.mkfifo(fifo)
    runtime = lab.child("runtime")
    pid = runtime.do(begin, hold, str(fifo), str(folder))
    time.sleep(MOMENT)
    if ran.exists():
        raise Wrong("the program ran before anybody had written into the FIFO")
    for _ in range(3):
        lab.until(lambda: ran.exists() or ended(pid) or look(fifo), SECONDS, "nobody has opened the FIFO for reading")
        time.sleep(MOMENT)
        if ran.exists():
            raise Wrong("somebody opened the FIFO and closed it again, to see whether anybody waits, "
                        "and the program began")  # fmt: skip
        if ended(pid):
            said = (folder / "trouble").read_text() if (folder / "trouble").exists() else "it has returned"
            raise Wrong(f"the process ended before it was started: {said}")
    runtime.do(write, str(fifo))
    lab.until(ran.exists, SECONDS, "a byte was written into the FIFO, and the program did not begin")
    program = lab.until(ran.read_text, SECONDS)
    if int(program) != pid:
        raise Wrong(f"the program, {program.strip()}, is another process than the one that waited, {pid}: "
                    "that is the number that the engine was told")  # fmt: skip
    if str(fifo) in (folder / "open").read_text().splitlines():
        raise Wrong("the program holds the FIFO open: a descriptor went over execve that it was not to have")


def look(fifo: Path) -> bool:
    """What `state` does to see whether anybody waits."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        return True
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False


def begin(hold: Callable[[str, Callable[[], None]], Any], fifo: str, folder: str) -> int:
    """In a child: the container's process, which holds; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        hold(fifo, lambda: os.execv("/bin/sh", ["sh", "-c", PROGRAM, "sh", folder]))
    except BaseException as error:
        Path(folder, "trouble").write_text(f"it raised {type(error).__name__}: {error}")
    finally:
        os._exit(1)


def write(fifo: str) -> None:
    """In a child, so that one that waits for ever can be ended: what `start` does."""
    line = os.open(fifo, os.O_WRONLY)
    os.write(line, b"\0")
    os.close(line)


def ended(pid: int) -> bool:
    """Whether the process is gone, or dead and not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True
