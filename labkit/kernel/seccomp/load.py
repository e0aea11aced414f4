"""Floor 1: a seccomp filter given to the kernel: from the next system call on it is asked.

Owns: struct sock_fprog, the flags of seccomp(2), and what its refusals mean.

A filter cannot be taken off again, and is inherited by children and over execve.  Several may be on
one process: all are asked, and the most severe answer counts.

Read: seccomp(2); Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno

from labkit import leanctypes as ctypes
from labkit.errors import Refused, explain
from labkit.kernel import constants as C
from labkit.kernel import syscalls
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:  # a program that is there as bytes needs no compiler, and no tables of a thousand calls
    from collections.abc import Sequence

    from labkit.kernel.seccomp.classic import Instruction
    from labkit.kernel.seccomp.profile import Profile

WHY = {
    errno.EACCES: "without no_new_privs only a process with CAP_SYS_ADMIN may do this: "
    "a set-user-ID program would inherit a filter that makes it fail at will",
    errno.EINVAL: "the program or a flag is not one that this kernel takes",
    errno.EBUSY: "a filter with a listener is on this process already, and there can be one only",
    errno.ENOMEM: "all filters of one process have 32768 instructions at most together",
}
NEXT = {
    errno.EACCES: "call labkit.kernel.process.forbid_new_privileges() first, or be root",
    errno.EBUSY: "pass on all calls from one filter",
}


INSTRUCTION = 8  # bytes of a struct sock_filter


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    def __str__(self) -> str:
        return f"{{len={self.length}}}"


def install(profile: Profile) -> int | None:
    """Compile a profile and put it on this process; the listener's descriptor, if it passes calls on.

    Raises BadInput (see compiler.compile) and what `load` raises.
    """
    from labkit.kernel.seccomp import compiler

    return load(compiler.compile(profile), profile.flags, listen=profile.notifies)


def load(program: Sequence[Instruction] | bytes, flags: int = 0, *, listen: bool = False) -> int | None:
    """Put a program on this process, or the bytes that classic.pack made of one.

    flags -- SECCOMP_FILTER_FLAG_..., or'ed.

    Returns the listener's descriptor (close-on-exec) with `listen`, else None.  Raises LabError; Refused
    when this process has several threads and the flags have no TSYNC, or a thread cannot follow.
    """
    together = bool(flags & C.SECCOMP_FILTER_FLAG_TSYNC)
    if not together and (count := syscalls.threads()) > 1:
        raise Refused(
            "cannot put a seccomp filter on this process",
            why=f"it has {count} threads, and the filter would be on one of them only",
            next="do it in a fresh single-threaded program, or with SECCOMP_FILTER_FLAG_TSYNC",
        )
    if listen:
        flags |= C.SECCOMP_FILTER_FLAG_NEW_LISTENER
        # The answer is a descriptor then, and cannot also be the number of a thread that does not follow.
        flags |= C.SECCOMP_FILTER_FLAG_TSYNC_ESRCH if together else 0
    if not isinstance(program, bytes):
        from labkit.kernel.seccomp import classic

        program = classic.pack(program)
    code = ctypes.create_string_buffer(program, len(program))
    given = Program(len(program) // INSTRUCTION, ctypes.addressof(code))
    try:
        result = syscalls.call("seccomp", C.SECCOMP_SET_MODE_FILTER, flags, given)
    except OSError as error:
        number = error.errno or 0
        explain(
            error, "cannot put a seccomp filter on this process", why=WHY.get(number, ""), next=NEXT.get(number, "")
        )
    if listen:
        return result
    if result:
        raise Refused(
            "cannot put a seccomp filter on all threads of this process",
            why=f"thread {result} has a filter that the others have not",
            next="put the filter on before the threads are started",
        )
    return None
