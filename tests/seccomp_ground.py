"""What the tests of seccomp stand on: an interpreter of classic BPF, and libseccomp as the oracle.

The interpreter knows the whole instruction set of Linux's filters as far as seccomp allows it, so that
it runs libseccomp's programs as well as ours.
"""

from __future__ import annotations

import ctypes
import errno
import operator
import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

TOKENS = {
    **{"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0xC000003E, "SCMP_ARCH_X86": 0x40000003},
    **{"SCMP_ARCH_AARCH64": 0xC00000B7, "SCMP_ARCH_ARM": 0x40000028},
}


COMPARISONS = {0x15: operator.eq, 0x25: operator.gt, 0x35: operator.ge, 0x45: operator.and_}


@lru_cache(64)
def unpacked(code: bytes) -> list[tuple[int, int, int, int]]:
    """(code, jt, jf, k) of each instruction."""
    return list(struct.iter_unpack("=HBBI", code))


def run(code: bytes, nr: int, arch: int, arguments: Sequence[int], address: int = 0) -> int:
    """What a program answers for one call."""
    data = struct.pack("=IIQ6Q", nr, arch, address, *arguments)
    steps = unpacked(code)
    at, value = 0, 0
    for _ in range(len(steps)):
        operation, true, false, k = steps[at]
        at += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (value,) = struct.unpack_from("=I", data, k)
        elif operation == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            value &= k
        elif operation == 0x05:  # BPF_JMP | BPF_JA
            at += k
        elif operation in COMPARISONS:  # BPF_JMP | BPF_J{EQ,GT,GE,SET} | BPF_K
            at += true if COMPARISONS[operation](value, k) else false
        elif operation == 0x06:  # BPF_RET | BPF_K
            return k
        else:
            raise AssertionError(f"operation {operation:#x} at {at - 1}")
    raise AssertionError("the program does not end")


def confused(code: bytes) -> list[int]:
    """The comparisons that may be made with a wrong word in A, found by following all ways through a program.

    Either ways meet with different words in A, or an architecture is compared with what is none.  No right
    program has any.  libseccomp 2.5.4 makes both: it lets ways share instructions, and forgets to load again.
    """
    steps = list(struct.iter_unpack("=HBBI", code))
    holds: list[set[tuple[int, int]]] = [set() for _ in range(len(steps) + 1)]  # (offset, mask)
    reached, found = {0}, []
    for at, (operation, true, false, k) in enumerate(steps):
        if at not in reached or operation == 0x06:
            continue
        following = {at + 1}
        after = holds[at]
        if operation == 0x20:
            after = {(k, 0xFFFFFFFF)}
        elif operation == 0x54:
            after = {(offset, mask & k) for offset, mask in after}
        elif operation == 0x05:
            following = {at + 1 + k}
        else:
            following = {at + 1 + true, at + 1 + false}
            if len(after) != 1 or (after == {(4, 0xFFFFFFFF)} and k not in TOKENS.values()):
                found.append(at)
        for one in following:
            reached.add(one)
            holds[one] |= after
    return found


# --- libseccomp --------------------------------------------------------------------------

LIBRARY = ctypes.CDLL("libseccomp.so.2", use_errno=True)
LIBRARY.seccomp_init.restype = ctypes.c_void_p
LIBRARY.seccomp_init.argtypes = [ctypes.c_uint32]
LIBRARY.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
LIBRARY.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
LIBRARY.seccomp_arch_native.restype = ctypes.c_uint32
LIBRARY.seccomp_arch_resolve_name.restype = ctypes.c_uint32
LIBRARY.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
LIBRARY.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
LIBRARY.seccomp_release.argtypes = [ctypes.c_void_p]

ACTIONS = {
    **{"SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000},
    **{"SCMP_ACT_TRAP": 0x30000, "SCMP_ACT_ERRNO": 0x50000, "SCMP_ACT_TRACE": 0x7FF00000},
    **{"SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_NOTIFY": 0x7FC00000, "SCMP_ACT_ALLOW": 0x7FFF0000},
}
# enum scmp_compare of seccomp.h
COMPARE = {name: place for place, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)}
UNKNOWN = -1  # __NR_SCMP_ERROR


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


LIBRARY.seccomp_rule_add_array.argtypes = [
    *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
    ctypes.POINTER(Comparison),
]


class Disagrees(Exception):
    """libseccomp refuses a rule."""


def arch_token(name: str) -> int:
    """libseccomp's own token of an architecture (x32 has one of its own there)."""
    word = {"SCMP_ARCH_X86_64": b"x86_64", "SCMP_ARCH_X32": b"x32", "SCMP_ARCH_X86": b"x86"}.get(name)
    return int(LIBRARY.seccomp_arch_resolve_name(word or {"SCMP_ARCH_AARCH64": b"aarch64"}.get(name, b"arm")))


@lru_cache(None)
def resolve(name: str, call: str) -> int:
    """A call's number on an architecture; negative when it has none there, UNKNOWN when no architecture has."""
    return int(LIBRARY.seccomp_syscall_resolve_name_arch(arch_token(name), call.encode()))


def action(entry: dict[str, Any], key: str, number: str) -> int:
    """The value of an action, EPERM where ERRNO or TRACE has no number."""
    value = ACTIONS[entry[key]]
    if entry[key] in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value |= errno.EPERM if entry.get(number) is None else entry[number]
    return value


def libseccomp(profile: dict[str, Any], native: str = "SCMP_ARCH_X86_64") -> bytes:
    """The program that libseccomp makes when it is called as runc calls it. Raises Disagrees."""
    default = action(profile, "defaultAction", "defaultErrnoRet")
    context = LIBRARY.seccomp_init(default)
    try:
        here = int(LIBRARY.seccomp_arch_native())
        wanted = [native, *profile.get("architectures", [])]
        for name in dict.fromkeys(wanted):
            assert LIBRARY.seccomp_arch_add(context, arch_token(name)) in (0, -errno.EEXIST)
        if here not in map(arch_token, wanted):
            assert LIBRARY.seccomp_arch_remove(context, here) == 0
        for rule in profile.get("syscalls", []):
            value = action(rule, "action", "errnoRet")
            if value == default:
                continue
            given = [
                Comparison(one["index"], COMPARE[one["op"][9:]], one["value"], one.get("valueTwo", 0))
                for one in rule.get("args", [])
            ]
            twice = len({one.arg for one in given}) < len(given)
            for name in rule["names"]:
                number = int(LIBRARY.seccomp_syscall_resolve_name(name.encode()))
                if number == UNKNOWN:
                    continue
                for group in [[one] for one in given] if twice else [given]:
                    array = (Comparison * len(group))(*group)
                    code = LIBRARY.seccomp_rule_add_array(context, value, number, len(group), array)
                    if code:
                        raise Disagrees(f"{rule}: {os.strerror(-code)}")
        memory = os.memfd_create("filter", os.MFD_CLOEXEC)
        try:
            assert LIBRARY.seccomp_export_bpf(context, memory) == 0
            return os.pread(memory, 1 << 20, 0)
        finally:
            os.close(memory)
    finally:
        LIBRARY.seccomp_release(context)


class Runc:
    """What runc puts on a process: a stub that knows which numbers nobody can have meant, then libseccomp's program.

    Read: runc's libcontainer/seccomp/patchbpf/enosys_linux.go.  Raises Disagrees.
    """

    def __init__(self, profile: dict[str, Any], native: str = "SCMP_ARCH_X86_64") -> None:
        self.code = libseccomp(profile, native)
        self.highest: dict[tuple[int, bool], int] = {}  # by token, and by x32's bit on x86-64
        if profile["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
            return
        names = {call for rule in profile["syscalls"] for call in rule["names"]}
        for machine in profile.get("architectures", []):
            highest = max((resolve(machine, call) for call in names), default=0)
            if highest > 0:
                self.highest[TOKENS[machine], machine == "SCMP_ARCH_X32"] = highest

    def answer(self, nr: int, arch: int, arguments: Sequence[int]) -> int:
        """What a call gets."""
        x32 = arch == TOKENS["SCMP_ARCH_X32"] and bool(nr & 0x40000000)
        if nr > self.highest.get((arch, x32), nr):
            return 0x50000 | errno.ENOSYS
        return run(self.code, nr, arch, arguments)
