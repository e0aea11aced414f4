"""Floor 1: the one module that makes system calls.

Owns: finding a call's number, converting its arguments, retrying EINTR, naming the
call and its arguments in the OSError, refusing calls that a threaded process must
not make, and the recording that tests, the step mode and the timelines read.

Read: syscall(2), intro(2), errno(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from labkit.kernel import constants as C

# PyDLL keeps the interpreter's lock during the call.  With the lock released, a child of
# clone3 would wake up without it; and no call made here waits for another Python thread.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Argument = int | str | bytes | os.PathLike[str] | ctypes.Structure | ctypes.Array[ctypes.c_char] | None

# These move one thread only, or fail with a bare EINVAL, in a process that has several.
SINGLE_THREAD_ONLY = {"unshare", "setns", "clone3"}


class Call(NamedTuple):
    """One recorded system call; `at` in nanoseconds of CLOCK_MONOTONIC."""

    name: str
    arguments: tuple[Argument, ...]
    result: int
    errno: int
    at: int

    def __str__(self) -> str:
        answer = f"-1 {errno.errorcode.get(self.errno, self.errno)}" if self.errno else str(self.result)
        return f"{describe(self.name, self.arguments)} = {answer}"


_recordings: list[list[Call]] = []


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Everything that `call` does inside the `with` is appended to the list, in order."""
    calls: list[Call] = []
    _recordings.append(calls)
    try:
        yield calls
    finally:
        _recordings.remove(calls)


def number(name: str, machine: str | None = None) -> int:
    """The number of a system call on `machine` (default: this one).

    Raises OSError ENOSYS for an architecture or a call that the tables lack.
    """
    machine = machine or os.uname().machine
    if machine not in C.ARCHITECTURES:
        known = ", ".join(C.ARCHITECTURES)
        raise OSError(errno.ENOSYS, f"labkit has system call tables for {known}, not for {machine}")
    if name not in C.SYSCALLS:
        raise OSError(errno.ENOSYS, f"labkit's tables lack the system call {name}")
    return C.SYSCALLS[name][C.ARCHITECTURES[machine]]


def threads() -> int:
    """How many threads this process has (proc(5): /proc/self/task)."""
    return len(os.listdir("/proc/self/task"))


def call(name: str, *arguments: Argument) -> int:
    """Make one system call; return its result.

    int arguments go as they are, str and paths as C strings, structures and buffers by
    address, None as a null pointer.  EINTR is retried.

    Raises OSError with the call and its arguments in the text; RuntimeError where the
    call would act on one thread of several (see unshare(2), setns(2), user_namespaces(7)).
    """
    if name in SINGLE_THREAD_ONLY and (count := threads()) > 1:
        raise RuntimeError(
            f"{describe(name, arguments)}: this process has {count} threads, and the kernel would "
            "refuse (EINVAL) or move only one of them. Do kernel work in a fresh single-threaded "
            "program: `labkit run`, or labkit.runtime.launch from a notebook"
        )
    converted = [ctypes.c_long(number(name)), *(_convert(a) for a in arguments)]
    while True:
        ctypes.set_errno(0)
        result = int(_libc.syscall(*converted))
        code = ctypes.get_errno() if result == -1 else 0
        if code != errno.EINTR:
            break
    for calls in _recordings:
        calls.append(Call(name, arguments, result, code, time.monotonic_ns()))
    if code:
        raise OSError(code, f"{describe(name, arguments)}: {os.strerror(code)}")
    return result


def _convert(argument: Argument) -> object:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    if isinstance(argument, (ctypes.Structure, ctypes.Array)):
        return ctypes.byref(argument)
    return ctypes.c_char_p(os.fsencode(argument))


def describe(name: str, arguments: tuple[Argument, ...]) -> str:
    """A call as one would write it: mount("proc", "/proc", "proc", 0xe, NULL)."""

    def show(argument: Argument) -> str:
        if argument is None:
            return "NULL"
        if isinstance(argument, int):
            return str(argument) if -4096 < argument < 10 else hex(argument)
        if isinstance(argument, bytes):
            argument = argument.decode(errors="replace")
        if isinstance(argument, (ctypes.Structure, ctypes.Array)):
            return f"{{{type(argument).__name__}}}"
        return f'"{os.fspath(argument)}"'

    return f"{name}({', '.join(map(show, arguments))})"


# --- calls whose argument is a structure -------------------------------------------------


class OpenHow(ctypes.Structure):
    """struct open_how, openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class CloneArgs(ctypes.Structure):
    """struct clone_args up to `cgroup` (Linux 5.7), clone(2)."""

    _fields_ = [
        (field, ctypes.c_uint64)
        for field in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
            *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
        )
    ]


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dirfd` and let the kernel guard the way (RESOLVE_*); return a descriptor.

    Raises OSError: EXDEV and ELOOP are the guard's answers (openat2(2)).
    """
    how = OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return call("openat2", dirfd, path, how, ctypes.sizeof(how))


def clone3(flags: int, cgroup_fd: int | None = None) -> int:
    """Fork with `flags` (CLONE_NEW*), the child born inside the cgroup of `cgroup_fd`.

    Returns 0 in the child and its pid in the parent, like os.fork.  Python's own hooks
    around a fork are run, so that the child's interpreter knows that it is alone.
    """
    arguments = CloneArgs(flags=flags, exit_signal=17)  # SIGCHLD is 17 on both architectures
    if cgroup_fd is not None:
        arguments.flags |= C.CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    ctypes.pythonapi.PyOS_BeforeFork()
    try:
        pid = call("clone3", arguments, ctypes.sizeof(arguments))
    except BaseException:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        raise
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    return pid
