"""Floor 1: namespaces: the kinds, their flags, their files; making and joining them.

Owns: the one table that ties a kind's name to its flag and to its file in /proc.

Read: namespaces(7), clone(2), setns(2), pid_namespaces(7), cgroup_namespaces(7).
"""

from __future__ import annotations

import os

from labkit.kernel import constants as C
from labkit.kernel.attempts import noted
from labkit.kernel.syscalls import call
from labkit.lean import Record


class Kind(Record):
    """One kind of namespace."""

    name: str  # as lsns(8) and the OCI specification's readers say it
    flag: int  # for clone3, unshare and setns
    file: str  # below /proc/PID/ns
    oci: str  # its name in config.json
    isolates: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("mnt", C.CLONE_NEWNS, "mnt", "mount", "the mount table"),
        Kind("uts", C.CLONE_NEWUTS, "uts", "uts", "host name and domain name"),
        Kind("ipc", C.CLONE_NEWIPC, "ipc", "ipc", "System V IPC and POSIX message queues"),
        Kind("pid", C.CLONE_NEWPID, "pid", "pid", "process numbers"),
        Kind("net", C.CLONE_NEWNET, "net", "network", "network devices, addresses, ports, rules"),
        Kind("user", C.CLONE_NEWUSER, "user", "user", "user and group numbers, capabilities"),
        Kind("cgroup", C.CLONE_NEWCGROUP, "cgroup", "cgroup", "the root of the cgroup tree"),
        Kind("time", C.CLONE_NEWTIME, "time", "time", "boot and monotonic clocks"),
    )
}


def flags(names: list[str]) -> int:
    """The flags of several kinds, or'ed."""
    total = 0
    for name in names:
        total |= KINDS[name].flag
    return total


def inode(kind: str, pid: int | str = "self") -> int:
    """The inode number that identifies the namespace `pid` is in.

    Raises FileNotFoundError when the process is gone, PermissionError when it is not ours.
    """
    return os.stat(f"/proc/{pid}/ns/{KINDS[kind].file}").st_ino


def nested() -> bool:
    """Whether this process is in a user namespace that has not all of the machine's numbers (user_namespaces(7))."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def join(pid: int, names: list[str]) -> None:
    """Enter the namespaces of `pid`, all in one call (setns on a pidfd, Linux 5.8).

    The pid namespace is entered by children only: fork afterwards (setns(2)).
    Raises OSError; its note says which of the kernel's conditions failed.
    """
    fd = call("pidfd_open", pid, 0)
    try:
        noted("setns", fd, flags(names))
    finally:
        os.close(fd)


def leave(names: list[str]) -> None:
    """unshare(2): go on in new namespaces of these kinds. Raises OSError, with a note as `join` has."""
    noted("unshare", flags(names))
