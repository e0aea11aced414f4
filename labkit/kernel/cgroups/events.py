"""Floor 1: waiting for a cgroup's files of events; nobody asks again and again.

Owns: poll(2) on cgroup.events, memory.events, pids.events and the like.  The kernel raises
POLLPRI on an open file when its content has changed since this descriptor last read it, so
that a change between reading and waiting is never missed.

Read: Documentation/admin-guide/cgroup-v2.rst on "file modified event"; poll(2).
"""

from __future__ import annotations

import os
import select
import time

from labkit.errors import LabError
from labkit.kernel import attempts
from labkit.kernel.cgroups import forms
from labkit.kernel.cgroups.forms import Where
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

Table = dict[str, int]


class Watch:
    """One file of events, held open; leaving the `with` closes it.

    with events.Watch(group, "memory.events") as watch:
        before = watch.now()
        ...
        after = watch.wait(5)     # None when nothing happened in 5 seconds
    """

    def __init__(self, group: Where, name: str) -> None:
        self.group = group
        self.name = name
        try:
            self._fd = os.open(path := f"{os.fspath(group)}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if not os.path.isdir(group):
                raise forms.gone(group, f"cannot watch {name}") from error
            attempts.teach(error, f"cannot watch {path}", name, (path, ""))
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)

    def fileno(self) -> int:
        """For a poll of one's own: POLLPRI says that `now` will tell something new."""
        return self._fd

    def now(self) -> Table:
        """What the file says; from here on, `wait` waits for what comes after. Raises NotFound when the cgroup goes."""
        try:
            return forms.flat(os.pread(self._fd, 4096, 0).decode())
        except OSError as error:  # ENODEV: the file outlives its cgroup as a descriptor only
            raise forms.gone(self.group, f"cannot read {self.name}") from error

    def wait(self, seconds: float | None = None) -> Table | None:
        """What the file says once it has changed; None when it did not within `seconds`. Raises NotFound."""
        ready = self._poll.poll(None if seconds is None else max(0.0, seconds) * 1000)
        return self.now() if ready else None

    def close(self) -> None:
        """Give the descriptor back; twice is once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_for(
    group: Where, name: str, wanted: Callable[[Table], bool], seconds: float = 10.0, *, what: str = ""
) -> Table:
    """What the file says as soon as `wanted` holds of it.

        wait_for(group, "cgroup.events", lambda now: not now["populated"])

    Raises LabError when it does not within `seconds` (`what` says what was waited for), NotFound
    when the cgroup is not there or goes meanwhile.
    """
    deadline = time.monotonic() + seconds
    with Watch(group, name) as watch:
        table = watch.now()
        while not wanted(table):
            changed = watch.wait(deadline - time.monotonic())
            if changed is None:
                said = ", ".join(f"{key} {value}" for key, value in table.items())
                raise LabError(
                    what or f"{os.fspath(group)}/{name} does not say what was waited for",
                    why=f"after {seconds:g} s it says: {said}",
                )
            table = changed
        return table
