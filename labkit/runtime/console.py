"""Floor 3: a terminal for a container: one end inside, the other here.

Owns: the master end of a pty of the container's own devpts, and copying between it and
this process's terminal, which is raw meanwhile (the inner terminal does the echoing).

Read: pty(7), termios(3), ioctl_tty(2).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from types import FrameType


def size() -> dict[str, int] | None:
    """config.json's process.consoleSize for this process's own terminal; None where standard input is none.

    Set before the program runs: it may ask at once.
    """
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return None
    return {"height": rows, "width": columns} if rows and columns else None


class Console:
    """The master end, as the container's birth sent it."""

    def __init__(self, master: int) -> None:
        self.master = master

    def resize(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Give the inner terminal this terminal's size; also the handler of SIGWINCH."""
        try:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
        except OSError:  # standard input is no terminal: the inner one keeps its default
            pass

    def copy(self, output: int = 1) -> None:
        """Carry bytes both ways until the last process inside has closed the terminal."""
        before = termios.tcgetattr(0) if os.isatty(0) else None
        if before:
            tty.setraw(0)
            signal.signal(signal.SIGWINCH, self.resize)
        sources = [self.master, 0]
        try:
            while True:
                ready, _, _ = select.select(sources, [], [])
                if self.master in ready:
                    try:
                        data = os.read(self.master, 65536)
                    except OSError:  # EIO: nobody holds the other end any more
                        return
                    if not data:
                        return
                    os.write(output, data)
                if 0 in ready:
                    data = os.read(0, 65536)
                    if data:
                        os.write(self.master, data)
                    else:
                        sources.remove(0)
        finally:
            if before:
                termios.tcsetattr(0, termios.TCSADRAIN, before)
            os.close(self.master)
