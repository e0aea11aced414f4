"""Floor 1: the architectures that a seccomp filter may name, and what is odd about each.

Owns: for each name of the specification the token that the kernel puts into seccomp_data.arch, the
table of its calls, whether its arguments have 32 bits, and the calls of 32-bit x86 that are made
through one of two older ones (socketcall, ipc).

One kernel serves several: a program for x86 (32 bit) may run on x86-64, and its calls have other
numbers.  x32 has x86-64's token, and tells itself apart by a bit in the number.

Read: seccomp(2), "architecture"; socketcall(2), ipc(2); include/uapi/linux/{audit,net,ipc}.h.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from labkit.errors import BadInput
from labkit.kernel import callnumbers
from labkit.kernel import constants as C


class Machine(NamedTuple):
    """One architecture.  `wide`: arguments of 64 bits; otherwise the upper half is not looked at."""

    token: int  # AUDIT_ARCH_...
    table: str  # of labkit.kernel.callnumbers
    wide: bool


MACHINES = {
    "SCMP_ARCH_X86_64": Machine(C.AUDIT_ARCH_X86_64, "x86_64", True),
    "SCMP_ARCH_X32": Machine(C.AUDIT_ARCH_X86_64, "x32", False),
    "SCMP_ARCH_X86": Machine(C.AUDIT_ARCH_I386, "x86", False),
    "SCMP_ARCH_AARCH64": Machine(C.AUDIT_ARCH_AARCH64, "aarch64", True),
    "SCMP_ARCH_ARM": Machine(C.AUDIT_ARCH_ARM, "arm", False),
}
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}  # by os.uname().machine

# The specification has these too.  The kit runs on none of them.
WITHOUT_TABLE = {
    f"SCMP_ARCH_{name}"
    for name in (
        *("MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE"),
        *("S390", "S390X", "PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB"),
    )
}

# x86's one call for all sockets and the one for System V IPC: which of them is the first argument.
SOCKETCALL = {
    **{"socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6, "getpeername": 7},
    **{"socketpair": 8, "send": 9, "recv": 10, "sendto": 11, "recvfrom": 12, "shutdown": 13, "setsockopt": 14},
    **{"getsockopt": 15, "sendmsg": 16, "recvmsg": 17, "accept4": 18, "recvmmsg": 19, "sendmmsg": 20},
}
IPC = {
    **{"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13},
    **{"msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24},
}
THROUGH = {"socketcall": SOCKETCALL, "ipc": IPC}


def native(machine: str | None = None) -> str:
    """The specification's name for a machine's own architecture (default: this one's). Raises BadInput."""
    machine = machine or os.uname().machine
    if machine not in NATIVE:
        raise BadInput(
            f"no seccomp filter can be made for {machine}",
            why=f"labkit has system call tables for {', '.join(NATIVE)}",
            next="use a machine of one of these",
        )
    return NATIVE[machine]


def find(name: str) -> Machine:
    """The architecture of that name. Raises BadInput for a name that is none, or that has no table here."""
    if name in MACHINES:
        return MACHINES[name]
    why = (
        "labkit has no system call table for it"
        if name in WITHOUT_TABLE
        else "the specification knows no architecture of that name"
    )
    raise BadInput(
        f"linux.seccomp.architectures: {name!r} cannot be filtered", why=why, next=f"name some of {', '.join(MACHINES)}"
    )


def numbers(machine: Machine, name: str) -> list[tuple[int, int | None]]:
    """How a call of that name can be made: (number, what its first argument must then be or None).

    Empty where the architecture has no such call.  32-bit x86 has two ways for some.
    """
    table = callnumbers.table(machine.table)
    found: list[tuple[int, int | None]] = [(table[name], None)] if name in table else []
    if machine.table == "x86":
        found += [(table[through], calls[name]) for through, calls in THROUGH.items() if name in calls]
    return found
