"""Top floor: how a stage ends when it does not return, in words.

Owns: the two errors of the stage child, what an exit status or a signal means there, and
what there is to try next.

Read: wait(2), signal(7).
"""

from __future__ import annotations

import os
import signal

from labkit.errors import LabError

# The child ends itself with this signal when it can no longer answer; nobody else sends it.
MUTE = signal.SIGRTMAX - 1

# signal: (why it happens, what to try)
SIGNALS = {
    MUTE: (
        "it closed the line: the descriptors over which the child answers were closed or replaced",
        "leave descriptors above 2 that you did not open alone; to close yours, close them by number",
    ),
    signal.SIGKILL: (
        "it was killed (SIGKILL): by the function itself, by another process, or by the kernel for want of memory",
        "look for a kill() that hits the own pid or group; `dmesg` says whether memory ran out",
    ),
    signal.SIGSEGV: (
        "it touched memory that it does not have (SIGSEGV)",
        "look at the arguments of ctypes calls: a structure that is too short, a pointer that is none",
    ),
    signal.SIGSYS: (
        "a seccomp filter ended it at a forbidden system call (SIGSYS)",
        "see one.calls for the last call, and allow what Python itself needs",
    ),
}


class Hung(LabError):
    """A stage that did not end in time; it was ended with everything that it started.

    stage, limit (in seconds), line (of the function, "" when unknown), syscall ("" when it computed).
    """

    stage = ""
    limit = 0.0
    line = ""
    syscall = ""


class Died(LabError):
    """A stage whose process ended instead of answering.

    stage, and one of: code (its exit status), signal (the number that ended it).
    """

    stage = ""
    code: int | None = None
    signal: int | None = None


def hung(child: str, stage: str, limit: float, line: str, syscall: str) -> Hung:
    """A stage that went over its `limit` seconds, and where it was."""
    where = f"it was in {line}" if line else "its line is not known: it blocks signals, or runs no Python"
    where += f"; it waited in the system call {syscall}" if syscall else "; in no system call: it computes"
    error = Hung(
        f"the stage {stage!r} of the child {child!r} did not end within {limit:g} s",
        why=where,
        next=f"it was ended with all that it started; mend the function, or allow it more: limit={3 * limit:g}",
    )
    error.stage, error.limit, error.line, error.syscall = stage, limit, line, syscall
    return error


def died(child: str, stage: str, status: int, last: str) -> Died:
    """What a wait status of the child means; `last` is the stage's last recorded system call, "" when it made none."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        why, next_ = SIGNALS.get(number, (f"it was ended by {_name(number)}", "look for what sends that signal"))
    else:
        why = f"it ended itself with status {os.WEXITSTATUS(status)} (sys.exit, os._exit or a program after execve)"
        next_ = "a function ends by returning; end a forked process with os._exit, not the stage itself"
    if last:
        why += f"; its last recorded call: {last}"
    error = Died(f"the child {child!r} died in its stage {stage!r}", why=why, next=f"{next_}; then make a new Child")
    error.stage = stage
    error.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    error.code = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return error


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
