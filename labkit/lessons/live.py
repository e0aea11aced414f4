"""Top floor: a picture that follows the kernel while you watch, and stands still afterwards.

Owns: the one sampler thread, the one widget trait that it writes to, and the end: a live
view stops by itself, gives its thread back, and leaves a still picture and its text behind.

A sample is taken and drawn outside the page's own machinery: one SVG string a tick goes to
the browser.  (A matplotlib figure a tick would cost a hundred times as much.)

Read: ipywidgets' documentation on HTML and on asynchronous widgets; IPython.display.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from labkit.errors import BadInput

RATES = (0.2, 20.0)  # pictures a second that make sense for a reader
LONGEST = 600.0  # seconds; nobody watches longer, and a forgotten view must end


class Drawn(Protocol):
    """What a view shows: labkit.draw.svg.Picture is one."""

    svg: str
    text: str


class Live:
    """A view that is running or has ended; made by `watch`."""

    def __init__(self, look: Callable[[], Drawn], rate: float, seconds: float) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            raise BadInput(f"a live view cannot draw {rate} pictures a second", next=f"{RATES[0]} to {RATES[1]}")
        if not 0 < seconds <= LONGEST:
            raise BadInput(f"a live view cannot last {seconds} s", next=f"up to {LONGEST:.0f} s")
        self.look = look
        self.period = 1 / rate
        self.seconds = seconds
        self.ticks = 0
        self.last: Drawn = look()  # a view that cannot be drawn fails here, in the cell that asked
        self.ended = ""  # why it stopped
        self._stop = threading.Event()
        self._widget = _widget(self.last.svg)
        self._handle = _show(self._widget, self.last)
        self._thread = threading.Thread(target=self._run, name="labkit-live", daemon=True)

    def start(self) -> Live:
        """Begin to follow."""
        self._thread.start()
        return self

    def stop(self) -> Drawn:
        """End now, wait for the thread, leave the still picture; the picture. Twice is once."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        return self.last

    def __enter__(self) -> Live:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Once more, so that what stays is what the kernel held when the block ended.
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        deadline = time.monotonic() + self.seconds
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                self._tick()
                due += self.period
                now = time.monotonic()
                if now >= deadline:
                    self.ended = f"stopped by itself after {self.seconds:g} s"
                    return
                # A slow machine leaves pictures out; it never falls behind.
                due = max(due, now)
                self._stop.wait(due - now)
            self._tick()
            self.ended = "stopped"
        except Exception as error:  # the process that was watched is gone: the last picture stays
            self.ended = f"stopped: {error}"
        finally:
            self._still()

    def _tick(self) -> None:
        picture = self.look()
        self.ticks += 1
        if self._widget is not None and picture.svg != self.last.svg:
            self._widget.value = picture.svg
        self.last = picture

    def _still(self) -> None:
        """Put the last picture where the widget was: a page without a kernel shows it too."""
        if self._handle is not None:
            self._handle.update(_Still(self.last))
        if self._widget is not None:
            self._widget.close()


class _Still:
    """A picture as the page keeps it."""

    def __init__(self, picture: Drawn) -> None:
        self.picture = picture

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.picture.svg, "text/plain": self.picture.text}


def watch(look: Callable[[], Drawn], *, rate: float = 5.0, seconds: float = 60.0) -> Live:
    """A live view of what `look` draws, `rate` times a second, for at most `seconds`.

        with live.watch(lambda: processes.tree(snapshot.take(Tree(box.pid)))):
            ...                       # what happens here is seen while it happens

    Without `with`: watch(...).start(), and .stop(), or it stops by itself.
    Raises BadInput for a rate or a time that make no sense, and whatever `look` raises at first.
    """
    return Live(look, rate, seconds)


def _widget(svg: str) -> Any:
    """The widget whose one trait is written; None outside a notebook."""
    if not in_notebook():
        return None
    from ipywidgets import HTML

    return HTML(value=svg)


def _show(widget: Any, picture: Drawn) -> Any:
    if widget is None:
        return None
    from IPython.display import display

    return display(widget, display_id=True)  # type: ignore[no-untyped-call]


def in_notebook() -> bool:
    """Whether a notebook's page shows what this process displays."""
    import sys

    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython  # type: ignore[attr-defined,unused-ignore]

    shell = get_ipython()  # type: ignore[no-untyped-call,unused-ignore]
    return shell is not None and hasattr(shell, "kernel")
