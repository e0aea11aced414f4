"""Floor 1: the one module that makes system calls.

Owns: finding a call's number, converting its arguments, retrying EINTR, naming the
call and its arguments in the OSError, refusing calls that a threaded process must
not make, the recording that tests, the step mode and the timelines read, and the calls
that a test makes fail.

Read: syscall(2), intro(2), errno(3).
"""

from __future__ import annotations

import errno
import os
import time

from labkit import leanctypes as ctypes
from labkit.errors import Refused
from labkit.kernel import constants as C
from labkit.kernel import flagwords
from labkit.lean import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from typing import Protocol

    class Sink(Protocol):
        """What a recording goes to: a list, or whatever else has its append."""

        def append(self, call: Call, /) -> object:
            """Take one call."""


# PyDLL keeps the interpreter's lock during the call.  With the lock released, a child of
# clone3 would wake up without it; and no call made here waits for another Python thread.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Argument = int | str | bytes | os.PathLike[str] | ctypes.Structure | ctypes.Array[ctypes.c_char] | None

# Asked once: a process may call itself i686 later (personality(2), PER_LINUX32) and has the same numbers still.
MACHINE = os.uname().machine

ZEROS = [ctypes.c_long(0)] * 7

# These move one thread only, or fail with a bare EINVAL, in a process that has several.
SINGLE_THREAD_ONLY = {"unshare", "setns", "clone3"}


class Call(Record):
    """One recorded system call; `at` in nanoseconds of CLOCK_MONOTONIC."""

    name: str
    arguments: tuple[Argument, ...]
    result: int
    errno: int
    at: int

    def __str__(self) -> str:
        answer = f"-1 {errno.errorcode.get(self.errno, self.errno)}" if self.errno else str(self.result)
        return f"{describe(self.name, self.arguments)} = {answer}"


class Opaque(str):
    """How a structure or a buffer among a call's arguments is written down: {CloneArgs}."""


class Threaded(Refused, RuntimeError):
    """A call that would act on one thread of several; nothing was asked of the kernel."""


class Failure:
    """One injected failure: the `which`-th call, or the first of that name, ends with `code`; once."""

    def __init__(self, which: int | str, code: int) -> None:
        self.which = which
        self.code = code
        self.calls = 0  # counted so far
        self.hit: Call | None = None  # the call that was not made

    def meets(self, name: str) -> bool:
        """Whether this call, now counted, is the one."""
        self.calls += 1
        return self.hit is None and self.which in (name, self.calls)


_recordings: list[Sink] = []
_numbers = (
    {name: columns[C.ARCHITECTURES[MACHINE]] for name, columns in C.SYSCALLS.items()}
    if (MACHINE in C.ARCHITECTURES)
    else {}
)
_failures: list[Failure] = []


def keep(sink: Sink) -> None:
    """Append every call from now on to `sink`, for the life of this process and of its forks."""
    _recordings.append(sink)


def note(call: Call) -> None:
    """Hand a call that another process made for this one to the recordings of this one."""
    for calls in _recordings:
        calls.append(call)


class failing:
    """Make one call inside the `with` fail with errno `code`, without making it: the n-th, or the first of a name.

    Calls are counted from 1.  It stands in the recordings like any that failed.  `hit` of
    what the `with` gives stays None when there was no such call.  A Failure given goes on counting.
    """

    def __init__(self, which: int | str | Failure, code: int = errno.EPERM) -> None:
        self.failure = which if isinstance(which, Failure) else Failure(which, code)

    def __enter__(self) -> Failure:
        _failures.append(self.failure)
        return self.failure

    def __exit__(self, *_: object) -> None:
        _failures.remove(self.failure)


class recording:
    """Everything that `call` does inside the `with` is appended to the list that it gives, in order."""

    def __enter__(self) -> list[Call]:
        self.calls: list[Call] = []
        _recordings.append(self.calls)
        return self.calls

    def __exit__(self, *_: object) -> None:
        # By identity: two lists without a call are equal.
        del _recordings[[one is self.calls for one in _recordings].index(True)]


def number(name: str, machine: str | None = None) -> int:
    """The number of a system call on `machine` (default: this one).

    Raises OSError ENOSYS for an architecture or a call that the tables lack.
    """
    if machine is None and (known_number := _numbers.get(name)) is not None:
        return known_number
    machine = machine or MACHINE
    if machine not in C.ARCHITECTURES:
        known = ", ".join(C.ARCHITECTURES)
        raise OSError(errno.ENOSYS, f"labkit has system call tables for {known}, not for {machine}")
    if name not in C.SYSCALLS:
        raise OSError(errno.ENOSYS, f"labkit's tables lack the system call {name}")
    return C.SYSCALLS[name][C.ARCHITECTURES[machine]]


def threads() -> int:
    """How many threads this process has (proc(5): /proc/self/task); 1 where no /proc is mounted to tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return 1


def call(name: str, *arguments: Argument) -> int:
    """Make one system call; return its result.

    int arguments go as they are, str and paths as C strings, structures and buffers by
    address, None as a null pointer; those left out are 0.  EINTR is retried.

    Raises OSError with the call and its arguments in the text; ValueError for a str or path with a NUL; Threaded
    (a RuntimeError) where the call would act on one thread of several (unshare(2), setns(2), user_namespaces(7)).
    """
    if name in SINGLE_THREAD_ONLY and (count := threads()) > 1:
        raise _threaded(name, arguments, count)
    converted = [ctypes.c_long(number(name)), *map(_convert, arguments)]
    # The kernel takes all six registers: what nobody gave would be what was in them before.
    converted += ZEROS[len(converted) :]
    met = [failure for failure in _failures if failure.meets(name)] if _failures else ()
    if met:
        result, code = -1, met[0].code
    else:
        result, code = _make(converted)
    if met or _recordings:
        made = Call(name, arguments, result, code, time.monotonic_ns())
        for failure in met:
            failure.hit = made
        note(made)
    if code:
        raise OSError(code, f"{describe(name, arguments)}: {os.strerror(code)}")
    return result


def _make(converted: list[object]) -> tuple[int, int]:
    """The call's result and errno."""
    while True:
        ctypes.set_errno(0)
        result = int(_libc.syscall(*converted))
        code = ctypes.get_errno() if result == -1 else 0
        if code != errno.EINTR:
            return result, code


def _threaded(name: str, arguments: tuple[Argument, ...], count: int) -> Threaded:
    names = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                names.add(file.read().strip())
        except OSError:
            pass  # this one has ended meanwhile
    shown = ", ".join(sorted(names)[:6])
    return Threaded(
        f"{describe(name, arguments)} was not asked of the kernel",
        why=f"this process has {count} threads ({shown}): the kernel would refuse (EINVAL) or move only one of them",
        next="do it in a fresh single-threaded program: labkit.lessons.Child(name).do(function), "
        "or @labkit.lessons.in_child before the function; whole containers: labkit.runtime.launch",
    )


def _convert(argument: Argument) -> object:
    if isinstance(argument, int):  # the most frequent ones first
        return ctypes.c_long(argument)
    if argument is None:
        return None
    if isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    if isinstance(argument, (ctypes.Structure, ctypes.Array)):
        return ctypes.byref(argument)
    text = os.fsencode(argument)
    if b"\0" in text:  # the kernel would read up to there, and act on another file
        raise ValueError(f"embedded null byte: {text!r}")
    return ctypes.c_char_p(text)


def plain(made: Call) -> Call:
    """The same call with arguments that can be pickled, and the same text."""

    def one(argument: Argument) -> Argument:
        if isinstance(argument, (ctypes.Structure, ctypes.Array)):
            return Opaque(structure(argument))
        return os.fspath(argument) if isinstance(argument, os.PathLike) else argument

    return made._replace(arguments=tuple(map(one, made.arguments)))


def describe(name: str, arguments: tuple[Argument, ...]) -> str:
    """A call as strace shows it: mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV, NULL)."""

    def show(place: int, argument: Argument) -> str:
        if argument is None:
            return "NULL"
        if isinstance(argument, Opaque):
            return str(argument)
        if isinstance(argument, int):
            plain = str(argument) if -4096 < argument < 10 else hex(argument)
            return flagwords.word(name, place, argument, arguments) or plain
        if isinstance(argument, bytes):
            argument = argument.decode(errors="replace")
        if isinstance(argument, (ctypes.Structure, ctypes.Array)):
            return structure(argument)
        return f'"{os.fspath(argument)}"'

    return f"{name}({', '.join(show(*one) for one in enumerate(arguments))})"


def structure(argument: ctypes.Structure | ctypes.Array[ctypes.c_char]) -> str:
    """In its own words, {flags=CLONE_NEWPID}, where its class has some; else the class's name, {Load}."""
    return f"{{{type(argument).__name__}}}" if type(argument).__str__ is object.__str__ else str(argument)


# --- calls whose argument is a structure -------------------------------------------------


class OpenHow(ctypes.Structure):
    """struct open_how, openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]

    def __str__(self) -> str:
        words = [f"flags={flagwords.opening(self.flags)}"]
        words += [f"mode={self.mode:#o}"] if self.mode else []
        words += [f"resolve={flagwords.flags('RESOLVE_', self.resolve)}"] if self.resolve else []
        return f"{{{', '.join(words)}}}"


class CloneArgs(ctypes.Structure):
    """struct clone_args up to `cgroup` (Linux 5.7), clone(2)."""

    _fields_ = [
        (field, ctypes.c_uint64)
        for field in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
            *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
        )
    ]

    def __str__(self) -> str:
        return f"{{flags={flagwords.flags('CLONE_', self.flags) or '0'}}}"


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
    # SIGCHLD is 17 on both architectures.  A sister (CLONE_PARENT) has that of the process which makes it.
    arguments = CloneArgs(flags=flags, exit_signal=0 if flags & C.CLONE_PARENT else 17)
    if cgroup_fd is not None:
        arguments.flags |= C.CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    _libc.PyOS_BeforeFork()
    try:
        pid = call("clone3", arguments, ctypes.sizeof(arguments))
    except BaseException:
        _libc.PyOS_AfterFork_Parent()
        raise
    if pid == 0:
        _libc.PyOS_AfterFork_Child()
    else:
        _libc.PyOS_AfterFork_Parent()
    return pid
