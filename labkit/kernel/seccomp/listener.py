"""Floor 1: answering system calls for another process (SECCOMP_RET_USER_NOTIF).

Owns: receiving a call that a filter passed on, asking whether it still waits, and the three answers:
a value, an errno, or "make it after all".

The process stands still in its call meanwhile.  What its pointers point to may be read from its
memory, but it or another thread can change that at any time: so `proceed` is no security decision,
and after reading one asks `waits` again, since the pid may be another's by then.

Read: seccomp_unotify(2); include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import errno
import select

from labkit import leanctypes as ctypes
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


class Data(ctypes.Structure):
    """struct seccomp_data: the call."""

    _fields_ = [
        ("number", ctypes.c_int32),
        ("architecture", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    ]


class Notification(ctypes.Structure):
    """struct seccomp_notif: who waits (`pid`, 0 when it cannot be seen from here) in which call."""

    _fields_ = [("id", ctypes.c_uint64), ("pid", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("data", Data)]


class Response(ctypes.Structure):
    """struct seccomp_notif_resp: `error` is a negative errno."""

    _fields_ = [
        ("id", ctypes.c_uint64),
        ("value", ctypes.c_int64),
        ("error", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    ]


def _request(direction: int, number: int, size: int) -> int:
    """An ioctl's number: its direction (1 writes, 2 reads), the size of its argument, a letter, a number."""
    return direction << 30 | size << 16 | ord("!") << 8 | number


RECEIVE = _request(3, 0, ctypes.sizeof(Notification))  # SECCOMP_IOCTL_NOTIF_RECV
SEND = _request(3, 1, ctypes.sizeof(Response))  # SECCOMP_IOCTL_NOTIF_SEND
VALID = _request(1, 2, 8)  # SECCOMP_IOCTL_NOTIF_ID_VALID


def receive(listener: int, seconds: float | None = None) -> Notification | None:
    """The next call that waits; None when none came in time, or nobody is left who could make one.

    Raises OSError.
    """
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    for _, events in waiting.poll(None if seconds is None else seconds * 1000):
        if events & select.POLLIN:
            notification = Notification()  # the kernel wants it zeroed
            try:
                call("ioctl", listener, RECEIVE, notification)
            except FileNotFoundError:
                return None  # it was killed between the two calls
            return notification
    return None


def waits(listener: int, identity: int) -> bool:
    """Whether that call still waits for its answer: its process is alive, and was not interrupted."""
    try:
        call("ioctl", listener, VALID, ctypes.create_string_buffer(identity.to_bytes(8, "little"), 8))
    except FileNotFoundError:
        return False
    return True


def answer(listener: int, identity: int, value: int = 0, error: int = 0) -> bool:
    """Let the call return `value`, or fail with errno `error`; False when it waits no longer. Raises OSError."""
    return _send(listener, Response(identity, value, -error, 0))


def proceed(listener: int, identity: int) -> bool:
    """Let the kernel make the call after all; False when it waits no longer. Raises OSError."""
    return _send(listener, Response(identity, 0, 0, C.SECCOMP_USER_NOTIF_FLAG_CONTINUE))


def _send(listener: int, response: Response) -> bool:
    try:
        call("ioctl", listener, SEND, response)
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.EINPROGRESS):  # gone; answered already
            return False
        raise
    return True
