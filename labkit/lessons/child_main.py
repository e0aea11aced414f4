"""Top floor: the program that stands between a notebook and the stage child, and forks it.

Owns: the guardian.  Whatever the learner's functions fork and leave behind becomes its child
(it is a subreaper), so that the end of the tree is certain: when the notebook says so, when
the notebook's process ends in whatever way, and at SIGTERM, which `labkit reset` sends.

It has one thread, makes no namespace, and stays outside of all that the child enters.

Read: PR_SET_CHILD_SUBREAPER(2const), pidfd_open(2), wait(2).
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
from typing import Any, NoReturn

from labkit.errors import LabError
from labkit.kernel import constants as C
from labkit.kernel import process
from labkit.kernel.ledger import Ledger
from labkit.kernel.syscalls import call
from labkit.lessons import stages, tree
from labkit.lessons.line import Line


def main(options: dict[str, Any]) -> NoReturn:
    """Be the guardian; the child goes another way."""
    fds: dict[str, int] = options["fds"]
    control = Line(fds["control_in"], fds["control_out"])
    work = Line(fds["work_in"], fds["work_out"])
    process.set_title("labkit-guardian")
    call("prctl", C.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    bell, ringer = os.pipe()
    for fd in (bell, ringer):
        os.set_blocking(fd, False)
    ledger = Ledger(options["owner"])
    try:
        ledger.record("guardian", pid=os.getpid(), start=process.start_time(os.getpid()) or 0)
    except OSError:
        pass  # not root: `labkit reset` is root's, and has nothing to give back
    options["guardian"] = os.getpid()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        for fd in (bell, ringer, control.inward, control.outward):
            os.close(fd)
        stages.begin(work, fds["record"], fds["stack"], options)
    work.close()
    for name in ("record", "stack"):
        os.close(fds[name])
    signal.set_wakeup_fd(ringer)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _note)
    spawned = _watch(control, child, bell, options["notebook"])
    left = tree.end_below(os.getpid())
    try:
        control.send(pickle.dumps(("left", _unasked(left, child, spawned))), patience=1.0)
    except OSError:
        pass  # the notebook is gone
    try:
        for entry in ledger.entries():
            ledger.forget(entry)
    except (OSError, LabError):
        pass
    os._exit(0)


def _watch(control: Line, child: int, bell: int, notebook: int) -> list[int]:
    """Wait for a reason to end; report the child's end meanwhile.  The pids that were started on purpose."""
    poll = select.poll()
    poll.register(control.inward, select.POLLIN)
    poll.register(bell, select.POLLIN)
    # The line's end may be held open by a fork of the notebook's process; its own end tells for certain.
    try:
        watched = os.pidfd_open(notebook)
    except ProcessLookupError:
        return []
    poll.register(watched, select.POLLIN)
    _reap(control, child)  # it may have ended before the handler was there
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if watched in ready:
            return []
        if bell in ready and set(os.read(bell, 512)) - {signal.SIGCHLD}:
            return []
        _reap(control, child)
        if control.inward in ready:
            control.read()
            if (parcel := control.next()) is not None:
                spawned: list[int] = pickle.loads(parcel)
                return spawned
            if control.ended:
                return []


def _reap(control: Line, child: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child:
            try:
                control.send(pickle.dumps(("ended", status)), patience=1.0)
            except OSError:
                pass


def _unasked(left: list[tree.Left], child: int, spawned: list[int]) -> list[tree.Left]:
    """Those that neither are the child nor were started with spawn(), nor below such."""
    asked = set(spawned)
    for one in left:  # parents come before children
        if one.parent in asked:
            asked.add(one.pid)
    return [one for one in left if one.pid not in asked | {child}]


def _note(number: int, frame: object) -> None:
    """The wakeup descriptor has said it already."""
