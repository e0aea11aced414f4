"""Floor 1: when a process gets a processor and the disk: policy, priority, affinity.

Owns: sched_setattr(2) and ioprio_set(2), which neither Python nor libc has, the words for their
numbers, and lists of processors ("0-3,7").

Read: sched(7), sched_setattr(2), ioprio_set(2), sched_setaffinity(2).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from labkit import leanctypes as ctypes
from labkit.errors import BadInput
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call

POLICIES = {
    "SCHED_OTHER": C.SCHED_NORMAL,
    "SCHED_FIFO": C.SCHED_FIFO,
    "SCHED_RR": C.SCHED_RR,
    "SCHED_BATCH": C.SCHED_BATCH,
    "SCHED_IDLE": C.SCHED_IDLE,
    "SCHED_DEADLINE": C.SCHED_DEADLINE,
}
FLAGS = {
    f"SCHED_FLAG_{name}": getattr(C, f"SCHED_FLAG_{name}")
    for name in ("RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN",
                 "UTIL_CLAMP_MAX")
}  # fmt: skip
CLASSES = {
    "IOPRIO_CLASS_RT": C.IOPRIO_CLASS_RT,
    "IOPRIO_CLASS_BE": C.IOPRIO_CLASS_BE,
    "IOPRIO_CLASS_IDLE": C.IOPRIO_CLASS_IDLE,
}


class Attributes(ctypes.Structure):
    """struct sched_attr of 48 bytes, its first published form (Linux 3.14); times in nanoseconds."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


def set_policy(policy: str, *, nice: int = 0, priority: int = 0, flags: Sequence[str] = (), runtime: int = 0,
               deadline: int = 0, period: int = 0) -> None:  # fmt: skip
    """Give the calling thread a scheduling policy, by the specification's words.

    Raises BadInput for a policy that Linux does not have (SCHED_ISO), OSError for the kernel's reasons.
    """
    if policy not in POLICIES:
        raise BadInput(f"Linux has no scheduling policy {policy}", next=f"one of {', '.join(POLICIES)}")
    bits = 0
    for name in flags:
        bits |= FLAGS[name]
    size = ctypes.sizeof(Attributes)
    call("sched_setattr", 0, Attributes(size, POLICIES[policy], bits, nice, priority, runtime, deadline, period), 0)


def policy(pid: int = 0) -> Attributes:
    """What the kernel has for a thread. Raises OSError."""
    found = Attributes()
    call("sched_getattr", pid, found, ctypes.sizeof(found), 0)
    return found


def set_io_priority(kind: str, priority: int = 0) -> None:
    """Give the calling thread a class and a level, 0 to 7, for its disk traffic. Raises OSError."""
    call("ioprio_set", C.IOPRIO_WHO_PROCESS, 0, CLASSES[kind] << C.IOPRIO_CLASS_SHIFT | priority)


def io_priority(pid: int = 0) -> tuple[int, int]:
    """The class and the level of a thread. Raises OSError."""
    found = call("ioprio_get", C.IOPRIO_WHO_PROCESS, pid)
    return found >> C.IOPRIO_CLASS_SHIFT, found & 0xFF


def processors(text: str) -> set[int]:
    """The numbers of a list such as "0-3, 7". Raises BadInput."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            found.update(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise BadInput(f"{text!r} is no list of processors", next="for example 0-3,7") from None
    if not found:
        raise BadInput(f"{text!r} names no processor", next="for example 0-3,7")
    return found


def pin(text: str) -> None:
    """Let the calling thread run on these processors only. Raises BadInput, OSError."""
    os.sched_setaffinity(0, processors(text))
