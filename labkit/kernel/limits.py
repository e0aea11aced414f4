"""Floor 1: what one process may use at most: prlimit64(2), which sets and reads a limit of any process.

Owns: the limits by name, and the call.  Python's `resource` writes "unlimited" as -1, lacks RLIMIT_LOCKS, and its calls
are in no recording.

Read: getrlimit(2); include/uapi/asm-generic/resource.h.
"""

from __future__ import annotations

from labkit import leanctypes as ctypes
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call

UNLIMITED = 2**64 - 1  # RLIM_INFINITY
NUMBERS = {name: number for name, number in vars(C).items() if name.startswith("RLIMIT_")}


class Pair(ctypes.Structure):
    """struct rlimit64: a soft limit, which the process may raise up to the hard one."""

    _fields_ = [("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64)]

    def __str__(self) -> str:
        words = ["RLIM64_INFINITY" if one == UNLIMITED else str(one) for one in (self.soft, self.hard)]
        return f"{{rlim_cur={words[0]}, rlim_max={words[1]}}}"


def get(pid: int, number: int) -> tuple[int, int]:
    """The soft and the hard limit of a process; 0 is the caller. Raises OSError."""
    found = Pair()
    call("prlimit64", pid, number, None, found)
    return int(found.soft), int(found.hard)


def put(pid: int, number: int, soft: int, hard: int) -> None:
    """Set both. Raises OSError: EPERM without CAP_SYS_RESOURCE for a higher hard one, EINVAL for soft above hard."""
    call("prlimit64", pid, number, Pair(soft, hard), None)
