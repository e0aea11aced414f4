"""Floor 3: an init as the container's process 1, where config.json's annotation labkit.init asks for one.

Owns: the fork before powers are given up; the process that stays: it takes in orphans, passes signals on to the
command, and ends with the command's status.  Docker's --init puts a program of its own (tini) before the command;
here this process stays, and calls execve never.  Other runtimes know nothing of the annotation: with them the
command itself is process 1.

Read: pid_namespaces(7) on process 1; sigwait(3), waitpid(2).
"""

from __future__ import annotations

import os

from labkit.kernel import capabilities, process
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def split(terminal: bool, highest: int, hang_up: Callable[[], None]) -> None:
    """Fork: the command's process returns; the other one stays as process 1, and never does.

    terminal -- whether standard input is a terminal of the container's own; highest -- the last capability
    of this kernel; hang_up -- closes the line to the maker.
    """
    gate, closed = os.pipe()
    worker = os.fork()
    if worker:
        _stay(worker, highest, hang_up)
    os.close(closed)
    os.read(gate, 1)  # until the init has given up its powers and its descriptors
    os.close(gate)
    os.setpgid(0, 0)
    if terminal:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        os.tcsetpgrp(0, os.getpid())


def _stay(worker: int, highest: int, hang_up: Callable[[], None]) -> NoReturn:
    try:
        os.setpgid(worker, worker)  # on both sides, since a signal may have to be forwarded at once
    except (PermissionError, ProcessLookupError):  # it has done so itself, and gone on or ended
        pass
    process.set_title("labkit-init")
    hang_up()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    # Of root's powers an init needs to signal every user's processes, and nothing else.
    kill = ["CAP_KILL"] if capabilities.own()[1] & capabilities.bits(["CAP_KILL"]) else []
    capabilities.limit(kill, highest)
    capabilities.set_exactly(kill, kill, [], [])
    # An init never calls execve, so what was marked to close there is closed by hand; the gate opens with it.
    call("close_range", 3, 0xFFFFFFFF, 0)
    watched = signal.valid_signals() - {signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP}
    while True:
        arrived = signal.sigwait(watched)
        if arrived != signal.SIGCHLD:
            _forward(worker, arrived)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == worker:
                code = os.waitstatus_to_exitcode(status)
                # The end of process 1 is the end of everything in its pid namespace.
                os._exit(code if code >= 0 else 128 - code)


def _forward(worker: int, number: int) -> None:
    """Pass a signal on to the command's process group; it may be gone already."""
    try:
        os.kill(-worker, number)
    except ProcessLookupError:
        pass
