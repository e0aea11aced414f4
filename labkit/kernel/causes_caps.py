"""Floor 1: what this process may do: capabilities, user namespaces, and who owns which namespace.

Owns: the questions that several finders ask about privilege, and the finders for a want of it.

Read: capabilities(7), user_namespaces(7), ioctl_ns(2), proc_pid_status(5).
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

Arguments = tuple[Any, ...]

CAP_SETGID = 6
CAP_SETUID = 7
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21
NS_GET_USERNS = 0xB701  # include/uapi/linux/nsfs.h
NS_GET_PARENT = 0xB702
FIRST_USER_NAMESPACE = 0xEFFFFFFD  # include/linux/proc_ns.h: the inode number of the first one


def status(field: str, pid: int | str = "self") -> str:
    """One field of /proc/PID/status; empty when it is not there."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return line.partition(":")[2].strip()
    return ""


def has(capability: int, pid: int | str = "self") -> bool:
    """Whether a process has it in effect, in its own user namespace."""
    return bool(int(status("CapEff", pid), 16) >> capability & 1)


def in_first_user_namespace() -> bool:
    """Whether this process is in the user namespace that the machine began with."""
    return os.stat("/proc/self/ns/user").st_ino == FIRST_USER_NAMESPACE


def owner(namespace: str) -> int | None:
    """The inode of the user namespace that owns a /proc/PID/ns file; None when it lies above ours."""
    return _ask(namespace, NS_GET_USERNS)


def parent(namespace: str) -> int | None:
    """The inode of the parent of a user or pid namespace file; None when it lies above ours."""
    return _ask(namespace, NS_GET_PARENT)


def _ask(namespace: str, question: int) -> int | None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(fd, question)
    except OSError as error:
        if error.errno == errno.EPERM:
            return None
        raise
    finally:
        os.close(fd)
    try:
        return os.fstat(answer).st_ino
    finally:
        os.close(answer)


def no_admin(arguments: Arguments) -> str | None:
    """Mounting and new namespaces want CAP_SYS_ADMIN."""
    if has(CAP_SYS_ADMIN):
        return None
    return f"this process (user {os.geteuid()}) lacks CAP_SYS_ADMIN in its user namespace"


def mounts_of_another(arguments: Arguments) -> str | None:
    """CAP_SYS_ADMIN in a user namespace of one's own, but a mount namespace that belongs to another."""
    if not has(CAP_SYS_ADMIN) or owner("/proc/self/ns/mnt") == os.stat("/proc/self/ns/user").st_ino:
        return None
    return "this process has CAP_SYS_ADMIN in its own user namespace, but its mount namespace is owned by another one"
