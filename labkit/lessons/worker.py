"""Top floor: the two processes behind a stage child, as the notebook holds them.

Owns: starting the guardian, the exchange of one parcel for one answer while what is printed
is shown, and telling apart what may come instead of an answer: an end, another program, a
hang, a guardian that is gone; and ending all of it.

Read: poll(2), pidfd_open(2), field 28 of proc_pid_stat(5).
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.kernel import syscalls
from labkit.lessons import endings, hang, stages, tree
from labkit.lessons.line import pair
from labkit.lessons.printed import Printed

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (
    "import sys, json; options = json.loads(sys.argv[1]); sys.path[:] = options['path']\n"
    "from labkit.lessons.child_main import main; main(options)"
)
# In the environment of all that the child starts: they are found by it if the guardian was killed.
MARK = "LABKIT_CHILD"

_numbers = itertools.count(1)


class Worker:
    """The guardian, the child below it, and the lines to both.

    pid     the child's, once it has spoken
    ended   its wait status, once it has ended
    became  the program that it turned into by execve
    """

    def __init__(self, name: str, options: dict[str, Any], take: Callable[[str, syscalls.Call], None]) -> None:
        """Start both; `take` gets each recorded system call with the name of its stage."""
        self.name = name
        self.pid = 0
        self.ended: int | None = None
        self.became = ""
        self._take = take
        self._file = ""
        self._work, far_work = pair()
        self._control, far_control = pair()
        self._printed = Printed()
        self._record = os.memfd_create("labkit-record")
        self._stack = os.memfd_create("labkit-stack")
        self._read_to = 0
        fds = {
            "work_in": far_work.inward, "work_out": far_work.outward,
            "control_in": far_control.inward, "control_out": far_control.outward,
            "record": self._record, "stack": self._stack,
        }  # fmt: skip
        for fd in (self._record, self._stack):  # whoever of the child's forks writes, writes at the end
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        safe = re.sub(r"[^A-Za-z0-9_.-]", "-", name)
        self._owner = f"child-{safe}-{os.getpid()}-{next(_numbers)}"
        path = [str(ROOT), *(path or os.getcwd() for path in sys.path)]
        options = {**options, "fds": fds, "path": path, "owner": self._owner, "notebook": os.getpid()}
        try:
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", PROGRAM, json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=self._printed.far,
                stderr=self._printed.far,
                pass_fds=list(fds.values()),
                env={**os.environ, MARK: self._owner},
                start_new_session=True,  # an interrupt of the notebook's terminal is the notebook's
            )
        except BaseException:
            self._hang_up()
            raise
        finally:
            far_work.close()
            far_control.close()
            self._printed.close_far()

    def has_spoken(self, pid: int) -> None:
        """The child is ready, and this is its pid."""
        self.pid = pid
        self._began = _stack_start(pid)

    def exchange(self, stage: str, parcel: bytes | None, limit: float, file: str = "") -> dict[str, Any]:
        """Send a parcel, and show what is printed until the answer is here.

        `file` holds the learner's function.  The answer of a child that has turned into another
        program is empty.  Raises Hung, Died, LabError for a guardian that is gone.
        """
        deadline = time.monotonic() + limit
        self._file = file
        os.ftruncate(self._stack, 0)
        self._printed.begin()
        try:
            if parcel is not None:
                self._heed_control("between two stages")
                self._send(parcel, limit)
            return self._await(stage, deadline, limit)
        finally:
            self._printed.drain()
            self._printed.end()
            self._read_record()

    def end(self, spawned: list[int]) -> list[tree.Left]:
        """End the tree and give everything back; what it held beside the child and below `spawned`."""
        try:
            left = self._end_by_guardian(spawned)
            if self._guardian.poll() is None:
                tree.end_below(self._guardian.pid)
                self._guardian.kill()
            if self._guardian.wait() != 0:
                left += [one for one in tree.end_marked(f"{MARK}={self._owner}") if one.pid != self.pid]
            self._printed.drain()
            self._read_record()
        finally:
            self._hang_up()  # a guardian that was not heard from ends its tree now
        return left

    # --- waiting --------------------------------------------------------------------------

    def _send(self, parcel: bytes, limit: float) -> None:
        try:
            self._work.send(parcel, limit)
        except (BrokenPipeError, TimeoutError):
            pass  # what has become of the child is found by waiting for its answer

    def _await(self, stage: str, deadline: float, limit: float) -> dict[str, Any]:
        poll = select.poll()
        lines = [self._control.inward, self._printed.near]
        for fd in lines if self.became else [self._work.inward, *lines]:
            poll.register(fd, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._hung(stage, limit)
            ready = {fd for fd, _ in poll.poll(min(left, 3600) * 1000)}
            self._printed.drain()
            if self._printed.near in ready and self._printed.ended:
                poll.unregister(self._printed.near)
            if self._work.inward in ready:
                if (answer := self._answer()) is not None:
                    return answer
                if self._work.ended:
                    poll.unregister(self._work.inward)
                    if self._has_become():
                        return {}
            if self._control.inward in ready:
                self._heed_control(stage)
            if self.ended is not None:
                return self._over(stage)

    def _answer(self) -> dict[str, Any] | None:
        self._work.read()
        found = self._work.next()
        return None if found is None else pickle.loads(found)

    def _heed_control(self, stage: str) -> None:
        """Hear what the guardian has to say. Raises Died, and LabError when it is gone."""
        self._control.read()
        while (found := self._control.next()) is not None:
            kind, what = pickle.loads(found)
            if kind == "ended":
                self.ended = what
                if stage == "between two stages":
                    self._over(stage)
            else:
                raise LabError(
                    f"the child {self.name!r} was ended from outside ({stage})",
                    why="its guardian was told to end (SIGTERM): `labkit reset` does so",
                    next="make a new Child, and run its stages from the first",
                )
        if self._control.ended and not self.pid:
            raise LabError(
                f"the child {self.name!r} could not be started", why="its program ended; what it said is printed above"
            )
        if self._control.ended:
            raise LabError(
                f"the guardian of the child {self.name!r} is gone ({stage})",
                why="somebody has killed it: it is the parent process of the child",
                next="do not signal os.getppid() in a stage; make a new Child",
            )

    def _over(self, stage: str) -> dict[str, Any]:
        """The child has ended; its answer may lie in the line all the same."""
        assert self.ended is not None
        while (answer := self._answer()) is None and not self._work.ended:
            if not select.select([self._work.inward], [], [], 0)[0]:
                break  # a fork of the child's holds the line open
        if answer is not None:
            return answer
        if self.became:
            return {}
        self._read_record()
        last_stage, call = self._last
        raise endings.died(self.name, stage, self.ended, call if last_stage == stage else "")

    def _has_become(self) -> bool:
        """Whether the line ended because execve closed it: then the process has another stack."""
        deadline = time.monotonic() + 1.0
        # A process in the middle of execve has no stack yet, and one that is ending none any more.
        while self.pid and time.monotonic() < deadline and (found := tree.describe(self.pid)) is not None:
            if (start := _stack_start(self.pid)) in ("", "0"):
                time.sleep(0.001)
                continue
            self.became = found.name if start != self._began else ""
            break
        return bool(self.became)

    # --- a hang ---------------------------------------------------------------------------

    def _hung(self, stage: str, limit: float) -> endings.Hung:
        waits = hang.system_call(self.pid) if self.pid else ""
        line = ""
        if self.pid and not self.became:
            line = hang.line(self._dump(), self._file)
        return endings.hung(self.name, stage, limit, line, waits)

    def _dump(self) -> str:
        """The child's Python stack, written by its signal handler; "" when it blocks signals."""
        text = ""
        try:
            os.kill(self.pid, stages.SHOW_STACK)
        except ProcessLookupError:
            return ""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            before, text = text, os.pread(self._stack, 1 << 16, 0).decode(errors="replace")
            if text and text == before:
                break
            time.sleep(0.02)
        return text

    # --- the record, and the end -------------------------------------------------------------

    _last = ("", "")  # (stage, its last recorded call)

    def _read_record(self) -> None:
        """Take in the calls that were written down since the last time."""
        size = os.fstat(self._record).st_size
        while self._read_to + stages.RECORD.size <= size:
            head = os.pread(self._record, stages.RECORD.size, self._read_to)
            (length,) = stages.RECORD.unpack(head)
            stage, fields = pickle.loads(os.pread(self._record, length, self._read_to + len(head)))
            self._read_to += len(head) + length
            call = syscalls.Call(*fields)
            self._last = (stage, str(call))
            self._take(stage, call)

    def _end_by_guardian(self, spawned: list[int]) -> list[tree.Left]:
        left: list[tree.Left] = []
        deadline = time.monotonic() + 15
        poll = select.poll()
        poll.register(self._control.inward, select.POLLIN)
        try:
            os.kill(self._guardian.pid, signal.SIGCONT)  # a stage may have stopped it
            self._control.send(pickle.dumps(spawned), 1.0)
        except OSError:
            pass  # it has ended; what it said last is still there
        while not self._control.ended and time.monotonic() < deadline:
            poll.poll(100)
            self._printed.drain()
            self._control.read()
            while (found := self._control.next()) is not None:
                kind, what = pickle.loads(found)
                if kind == "left":
                    left = what
                else:
                    self.ended = what
        try:
            self._guardian.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        return left

    def _hang_up(self) -> None:
        self._printed.close()
        for fd in (self._record, self._stack):
            os.close(fd)
        self._work.close()
        self._control.close()


def _stack_start(pid: int) -> str:
    """Where the program's stack begins (field 28 of its stat): another place after each execve."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(") ")[2].split()[25]
    except OSError:
        return ""
