"""Reading floor: processes, as /proc tells of them.

Owns: the form of /proc/PID/stat and status on old and new kernels, and who is whose child.
A process that ends while it is being read is left out; what may not be read is left out of it.

Read: proc_pid_stat(5), proc_pid_status(5), proc_pid_ns(5), cgroups(7).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from labkit.kernel.namespaces import KINDS
from labkit.observe.model import Process

# A process that ended: ENOENT before it is opened, ESRCH after.
GONE = (FileNotFoundError, ProcessLookupError)
PF_KTHREAD = 0x00200000  # include/linux/sched.h: a thread of the kernel itself
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# The first line has nothing before it that could be taken for a field: a name's line feed is escaped.
STATUS = re.compile(r"^(Uid|Gid|NSpid|CapEff|NoNewPrivs|Seccomp):\s*(.*)$", re.MULTILINE)


class Stat(NamedTuple):
    """What /proc/PID/stat says, as far as it is wanted."""

    pid: int
    name: str
    state: str
    parent: int
    flags: int
    threads: int
    started: int  # clock ticks since boot


# Threads of the kernel, which are always children of kthreadd (or it), by pid and the inode of /proc/PID: the inode
# is another one when the pid has come to another process (fs/proc/base.c, proc_pid_make_inode).
Remembered = dict[tuple[int, int], Stat]


class Status(NamedTuple):
    """What /proc/PID/status says, as far as it is wanted."""

    inside: tuple[int, ...]  # () before Linux 4.1
    uid: int
    gid: int
    capabilities: int
    seccomp: int  # 0 before Linux 3.8, or in a kernel without
    no_new_privileges: bool  # False before Linux 4.10, which did not show it


def parse_stat(text: str) -> Stat:
    """The text of /proc/PID/stat. Raises ValueError for another form."""
    # The name may hold spaces and brackets: the first and the last bracket enclose it.
    pid, _, rest = text.partition(" (")
    name, bracket, rest = rest.rpartition(") ")
    fields = rest.split()
    if not bracket or len(fields) < 20:
        raise ValueError(f"no /proc/PID/stat: {text!r}")
    return Stat(int(pid), name, fields[0], int(fields[1]), int(fields[6]), int(fields[17]), int(fields[19]))


def parse_status(text: str) -> Status:
    """The text of /proc/PID/status; fields that an older kernel lacks have their neutral value."""
    found = dict(STATUS.findall(text))
    return Status(
        tuple(map(int, found.get("NSpid", "").split())),
        int(found["Uid"].split()[1]),
        int(found["Gid"].split()[1]),
        int(found["CapEff"], 16),
        int(found.get("Seccomp", 0)),
        found.get("NoNewPrivs", "0") == "1",
    )


def parse_cgroup(text: str) -> str:
    """The path in the version 2 tree, from the text of /proc/PID/cgroup; "" where there is none."""
    return next((line[3:] for line in text.split("\n") if line.startswith("0::")), "")


def parse_command(data: bytes) -> tuple[str, ...]:
    """The words of /proc/PID/cmdline. A program that wrote its title over them has one word, or spaces in it."""
    text = os.fsdecode(data).rstrip("\0")
    return tuple(text.split("\0")) if text else ()


def pids() -> list[int]:
    """Everything that /proc lists now, the lowest first."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def survey(remembered: Remembered | None = None) -> dict[int, Stat]:
    """The stat of every process: cheap, and enough to know who descends from whom.

    remembered -- the kernel's own threads of earlier surveys, which are not read again; it is kept up to date.
    """
    known = {} if remembered is None else remembered
    found = {}
    with os.scandir("/proc") as entries:
        listed = sorted((int(entry.name), entry.inode()) for entry in entries if entry.name.isdigit())
    for pid, inode in listed:
        try:
            stat = known.get((pid, inode)) or parse_stat(_text(f"/proc/{pid}/stat"))
        except GONE:
            continue
        found[pid] = stat
        if stat.flags & PF_KTHREAD:
            known[pid, inode] = stat
    if remembered is not None and len(remembered) > 2 * len(listed):
        remembered.clear()
    return found


def read(chosen: Iterable[int]) -> dict[int, Process]:
    """Those of the processes that are still there."""
    kernels: dict[str, int] = {}  # no thread of the kernel's own leaves the first namespaces
    found = {}
    for pid in chosen:
        try:
            found[pid] = _read(pid, kernels)
        except GONE:
            continue
    return found


def _read(pid: int, kernels: dict[str, int]) -> Process:
    # Everything through one descriptor: if the pid passes to another process meanwhile, that one is not read.
    folder = os.open(f"/proc/{pid}", DIRECTORY)
    try:
        stat = parse_stat(_text("stat", folder))
        status = parse_status(_text("status", folder))
        if stat.flags & PF_KTHREAD:
            if not kernels:
                kernels.update(_namespaces(folder))
            spaces = kernels
        else:
            spaces = _namespaces(folder)
        return Process(
            pid,
            stat.parent,
            stat.started,
            stat.name,
            parse_command(_bytes("cmdline", folder)),
            stat.state,
            status.inside or (pid,),
            stat.threads,
            status.uid,
            status.gid,
            spaces,
            status.capabilities,
            status.seccomp,
            status.no_new_privileges,
            parse_cgroup(_text("cgroup", folder)),
        )
    finally:
        os.close(folder)


def _namespaces(folder: int) -> dict[str, int]:
    found = {}
    for kind in KINDS:
        try:
            found[kind] = parse_link(os.readlink(f"ns/{kind}", dir_fd=folder))
        except FileNotFoundError:
            continue  # an older kernel lacks the kind; a dead process has but its user namespace
        except PermissionError:
            break  # ptrace(2): all or none
    return found


def link(pid: int | str, kind: str) -> int:
    """The inode of one namespace of a process, whoever it is; 0 when it is gone or another's."""
    try:
        return parse_link(os.readlink(f"/proc/{pid}/ns/{kind}"))
    except (*GONE, PermissionError):
        return 0


def parse_link(text: str) -> int:
    """The inode in the text of a link below /proc/PID/ns: net:[4026531840]."""
    return int(text[text.index("[") + 1 : -1])


def descendants(root: int, parents: Mapping[int, int]) -> set[int]:
    """`root`, its children, theirs, and so on; {} when it is not there.

    An orphan has the nearest subreaper above as its parent, and is found if that one is below `root`.
    """
    if root not in parents:
        return set()
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found, open_ = {root}, [root]
    while open_:
        new = [pid for pid in children.get(open_.pop(), ()) if pid not in found]
        found.update(new)
        open_ += new
    return found


def _bytes(path: str, folder: int | None = None) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        data = os.read(fd, 1 << 16)
        if len(data) < 4096:  # what fits a page comes at once
            return data
        parts = [data]
        while parts[-1]:
            parts.append(os.read(fd, 1 << 16))
        return b"".join(parts)
    finally:
        os.close(fd)


def _text(path: str, folder: int | None = None) -> str:
    return os.fsdecode(_bytes(path, folder))
