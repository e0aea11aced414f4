"""Floor 3: a signal that ends what is still being made, the way an error does: all is given back.

Owns: the handler, which raises SystemExit where the program stands, and the memory of what has arrived.  Raising is not
enough: what is raised while Python destroys an object, or runs a callback of its importer, is printed and dropped
("Exception ignored in"), and the signal would be lost with it.  So whoever is about to let something run for long
calls `check` first.

Read: signal(7); the library's documentation of sys.unraisablehook.
"""

from __future__ import annotations

import signal
from types import FrameType

STATUS = 128  # and the signal's number: what a shell says of whoever a signal has ended
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

_arrived: list[int] = []


def unwind() -> None:
    """From now on a signal of SIGNALS raises SystemExit; what the caller ignores (nohup) stays ignored."""
    _arrived.clear()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)


def check() -> None:
    """Raise SystemExit if a signal has arrived since `unwind`."""
    if _arrived:
        raise SystemExit(STATUS + _arrived[0])


def _raise(number: int, frame: FrameType | None) -> None:
    _arrived.append(number)
    raise SystemExit(STATUS + number)
