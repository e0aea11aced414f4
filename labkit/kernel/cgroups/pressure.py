"""Floor 1: PSI: how long work stood still for want of cpu, memory or io; and being told when it does.

Owns: reading a cgroup's pressure files (or the machine's, /proc/pressure), and triggers.

    pressure.read(group, "memory").some.avg10                    # percent
    with pressure.Trigger(group, "memory", stall=0.1, window=1) as trigger:
        trigger.wait(30)                                         # True when it fired

Read: Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from labkit.errors import BadInput, Refused
from labkit.kernel import causes
from labkit.kernel.cgroups import forms

MACHINE = Path("/proc/pressure")  # instead of a cgroup: all of the machine
RESOURCES = ("cpu", "memory", "io")
MICRO = 1_000_000


class Line(NamedTuple):
    """Parts of the last 10, 60 and 300 seconds in percent, and the sum in seconds."""

    avg10: float
    avg60: float
    avg300: float
    total: float


class Pressure(NamedTuple):
    """some: at least one task stood still; full: all of them did at once."""

    some: Line
    full: Line


NOTHING = Line(0.0, 0.0, 0.0, 0.0)


def file(group: Path, resource: str) -> Path:
    """Where the pressure of a resource stands. Raises BadInput, Refused, NotFound."""
    if resource not in RESOURCES:
        raise BadInput(f"there is no pressure of {resource!r}", next=f"one of {', '.join(RESOURCES)}")
    name = resource if group == MACHINE else f"{resource}.pressure"
    if not (group / name).exists():
        if not group.is_dir():
            raise forms.gone(group, f"cannot read {name}")
        raise Refused(
            f"{group / name} is not there",
            why="this kernel counts no pressure (CONFIG_PSI, boot option psi=1), or cgroup.pressure is 0",
        )
    return group / name


def read(group: Path, resource: str) -> Pressure:
    """How long work stood still. Raises LabError."""
    return parse(file(group, resource).read_text())


def parse(text: str) -> Pressure:
    """The two lines of a pressure file; a missing one is nothing."""
    found = forms.nested(text)

    def line(name: str) -> Line:
        one = found.get(name)
        if not one:
            return NOTHING
        return Line(float(one["avg10"]), float(one["avg60"]), float(one["avg300"]), int(one["total"]) / MICRO)

    return Pressure(line("some"), line("full"))


class Trigger:
    """Fires when tasks stood still for `stall` seconds within any `window` seconds; at most once a window.

    group -- a cgroup, or pressure.MACHINE; window -- 0.5 to 10 s, and without CAP_SYS_RESOURCE
    a multiple of 2 s (Linux 6.5).  Raises BadInput, LabError.  Leaving the `with` takes it away.
    """

    def __init__(self, group: Path, resource: str, *, stall: float, window: float = 1.0, full: bool = False) -> None:
        if not 0.5 <= window <= 10 or not 0 < stall <= window:
            raise BadInput(
                f"a trigger of {stall:g} s in {window:g} s cannot be set",
                why="a window lasts 0.5 to 10 s, and nothing stands still for longer than it lasts",
                next="for example stall=0.1, window=1",
            )
        self.group = group
        self.resource = resource
        path = file(group, resource)
        text = f"{'full' if full else 'some'} {round(stall * MICRO)} {round(window * MICRO)}"
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(self._fd, text.encode() + b"\0")
        except OSError as error:
            self.close()
            causes.teach(error, f"cannot set the trigger {text!r} on {path}", path.name, (path, text))
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)

    def fileno(self) -> int:
        """For a poll of one's own: POLLPRI says that it fired."""
        return self._fd

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it fired within `seconds`. Raises NotFound when the cgroup goes."""
        ready = self._poll.poll(None if seconds is None else max(0.0, seconds) * 1000)
        if ready and ready[0][1] & select.POLLERR:
            raise forms.gone(self.group, f"cannot wait for its {self.resource} pressure")
        return bool(ready)

    def close(self) -> None:
        """Take the trigger away; twice is once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Trigger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
