"""Floor 1: why unshare, clone3, setns or fork failed on this machine.

Owns: one finder for each condition of the kernel's fork.c, nsproxy.c, user_namespace.c and
pid_namespace.c.  unshare's arguments are (flags,), setns's (fd, flags), clone3's (clone_args, size).

Read: unshare(2), clone(2), setns(2), namespaces(7), pid_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from labkit.kernel import causes_caps as caps
from labkit.kernel import constants as C
from labkit.kernel import mountinfo
from labkit.kernel.syscalls import threads

Arguments = tuple[Any, ...]

FLAGS = {
    "mnt": C.CLONE_NEWNS,
    "uts": C.CLONE_NEWUTS,
    "ipc": C.CLONE_NEWIPC,
    "pid": C.CLONE_NEWPID,
    "net": C.CLONE_NEWNET,
    "user": C.CLONE_NEWUSER,
    "cgroup": C.CLONE_NEWCGROUP,
    "time": C.CLONE_NEWTIME,
}
DEEPEST = 32  # MAX_PID_NS_LEVEL


def flags_of(arguments: Arguments) -> int:
    """The CLONE_NEW* bits of unshare's, clone3's or setns's arguments; 0 for fork."""
    if not arguments:
        return 0
    if hasattr(arguments[0], "flags"):
        return int(arguments[0].flags)
    return int(arguments[-1])


def kinds(bits: int) -> list[str]:
    """The names of the kinds that `bits` ask for."""
    return [name for name, bit in FLAGS.items() if bits & bit]


# --- unshare, clone3, fork ------------------------------------------------------------


def new_without_admin(arguments: Arguments) -> str | None:
    """All kinds but user want CAP_SYS_ADMIN, and with a new user namespace in the same call one has it."""
    bits = flags_of(arguments)
    if bits & C.CLONE_NEWUSER or not kinds(bits):
        return None
    lacking = caps.no_admin(arguments)
    return f"{lacking}, which a new {' and '.join(kinds(bits))} namespace needs" if lacking else None


def chrooted(arguments: Arguments) -> str | None:
    """A user namespace would give CAP_SYS_CHROOT, with which one gets out of a chroot: so none is made in one."""
    if not flags_of(arguments) & C.CLONE_NEWUSER:
        return None
    roots = [mount for mount in mountinfo.table().values() if mount.place == "/"]
    if not roots:
        return "this process is in a chroot (its root is a plain folder), and there the kernel makes no user namespace"
    mine = os.stat("/proc/self/root")
    for pid, mounts in mountinfo.neighbours(same=True):
        other = os.stat(f"/proc/{pid}/root")
        if (mine.st_dev, mine.st_ino) != (other.st_dev, other.st_ino) and roots[0].parent in mounts:
            return f"this process is in a chroot (process {pid} of the same mount namespace has another root)"
    return None


def not_mapped(arguments: Arguments) -> str | None:
    """Who makes a user namespace must be somebody in the present one."""
    if not flags_of(arguments) & C.CLONE_NEWUSER:
        return None
    for file, number in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        ranges = [tuple(map(int, line.split())) for line in Path("/proc/self", file).read_text().splitlines()]
        if not any(first <= number < first + count for first, _, count in ranges):
            said = "is empty" if not ranges else f"lacks {number}"
            return f"this process is nobody in its own user namespace: /proc/self/{file} {said}"
    return None


def limit_reached(arguments: Arguments) -> str | None:
    """/proc/sys/user/max_*_namespaces, of this user namespace."""
    for kind in kinds(flags_of(arguments)):
        file = Path(f"/proc/sys/user/max_{kind}_namespaces")
        most = int(file.read_text())
        if most == 0 or most <= len(_seen(kind)):
            return f"{file} is {most}, and so many there are: no further {kind} namespace"
    return None


def _seen(kind: str) -> set[int]:
    """The namespaces of one kind that processes of this user namespace are in, and that it owns."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        path = f"/proc/{pid}/ns/{kind}"
        try:
            if caps.owner(path) == os.stat("/proc/self/ns/user").st_ino:
                found.add(os.stat(path).st_ino)
        except OSError:
            continue
    return found


def nested_too_deep(arguments: Arguments) -> str | None:
    """32 pid namespaces in one another."""
    if not flags_of(arguments) & C.CLONE_NEWPID:
        return None
    deep = len(caps.status("NSpid").split())
    # From a /proc that is itself some levels deep, those above are not seen.
    if deep < DEEPEST - 4:
        return None
    return f"this process is {deep - 1} pid namespaces below that of its /proc; {DEEPEST} in all is the most"


def unshared_with_threads(arguments: Arguments) -> str | None:
    """A user namespace belongs to a whole process, and unshare moves one thread."""
    if not flags_of(arguments) & C.CLONE_NEWUSER or (count := threads()) == 1:
        return None
    return f"this process has {count} threads, and unshare would give a user namespace to one of them"


def unshared_pid_twice(arguments: Arguments) -> str | None:
    """unshare(CLONE_NEWPID) is for the children to come; a second one would pass over a level."""
    if not flags_of(arguments) & C.CLONE_NEWPID or not _children_elsewhere():
        return None
    return "this process's children go to another pid namespace already (/proc/self/ns/pid_for_children)"


def init_has_ended(arguments: Arguments) -> str | None:
    """The first child after unshare(CLONE_NEWPID) is that namespace's process 1; with it the namespace ends."""
    if flags_of(arguments) & C.CLONE_NEWPID or not _children_elsewhere():
        return None
    return "this process's children go to a pid namespace (/proc/self/ns/pid_for_children) whose process 1 has ended"


def _children_elsewhere() -> bool:
    try:
        return os.readlink("/proc/self/ns/pid_for_children") != os.readlink("/proc/self/ns/pid")
    except FileNotFoundError:  # so far without a process 1
        return True


def too_many_processes(arguments: Arguments) -> str | None:
    """RLIMIT_NPROC counts the processes of one user."""
    line = next(line for line in Path("/proc/self/limits").read_text().splitlines() if line.startswith("Max processes"))
    most = line.split()[2]
    if most == "unlimited" or os.geteuid() == 0:
        return None
    mine = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _uid(pid) == os.geteuid()]
    count = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in mine if os.path.isdir(f"/proc/{pid}/task"))
    if count < int(most):
        return None
    return f"user {os.geteuid()} has {count} processes and threads, and may have {most} (ulimit -u)"


def _uid(pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def pids_max(arguments: Arguments) -> str | None:
    """pids.max of a cgroup at or above this process's own."""
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    tops = [mount for mount in mountinfo.table().values() if mount.kind == "cgroup2"]
    if not tops:
        return None
    group = Path(tops[0].place) / own.lstrip("/")
    while group != Path(tops[0].place):
        most = (group / "pids.max").read_text().strip() if (group / "pids.max").exists() else "max"
        if most != "max" and int((group / "pids.current").read_text()) >= int(most):
            return f"the cgroup {group} has {most} processes, and pids.max is {most}"
        group = group.parent
    return None


# --- setns ----------------------------------------------------------------------------


def target(fd: int) -> tuple[str, int]:
    """(kind, inode) for a namespace's file, ("pidfd", pid) for a process's, ("", 0) for anything else."""
    link = os.readlink(f"/proc/self/fd/{fd}")
    if found := re.fullmatch(r"(\w+):\[(\d+)\]", link):
        return found[1], int(found[2])
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    if found := re.search(r"^Pid:\s*(-?\d+)$", info, re.MULTILINE):
        return "pidfd", int(found[1])
    return "", 0


def _file(arguments: Arguments, kind: str) -> str | None:
    """The namespace of `kind` that setns is to enter, as a file; None when it is not asked for."""
    fd, bits = arguments
    what, number = target(fd)
    if what == "pidfd":
        return f"/proc/{number}/ns/{kind}" if bits & FLAGS[kind] else None
    return f"/proc/self/fd/{fd}" if what == kind else None


def no_namespace(arguments: Arguments) -> str | None:
    """A descriptor of something else."""
    if target(arguments[0])[0]:
        return None
    return f"descriptor {arguments[0]} is {os.readlink(f'/proc/self/fd/{arguments[0]}')}: no namespace and no process"


def closed(arguments: Arguments) -> str | None:
    """A descriptor that is not open."""
    return None if os.path.lexists(f"/proc/self/fd/{arguments[0]}") else f"descriptor {arguments[0]} is not open"


def wrong_kind(arguments: Arguments) -> str | None:
    """The flag names another kind than the file is."""
    what, _ = target(arguments[0])
    if what not in FLAGS or arguments[1] in (0, FLAGS[what]):
        return None
    return f"the descriptor is of a {what} namespace, and the flags ask for {', '.join(kinds(arguments[1])) or 'none'}"


def no_flags(arguments: Arguments) -> str | None:
    """A process has many namespaces, so that it must be said which."""
    if target(arguments[0])[0] != "pidfd" or kinds(arguments[1]):
        return None
    return "the descriptor is of a process, and the flags name none of its namespaces"


def own_user_namespace(arguments: Arguments) -> str | None:
    """Entering one's own user namespace again would give all capabilities back."""
    file = _file(arguments, "user")
    if file is None or os.stat(file).st_ino != os.stat("/proc/self/ns/user").st_ino:
        return None
    return "this process is in that user namespace already, and nobody enters his own a second time"


def pid_not_below(arguments: Arguments) -> str | None:
    """Children can be put into one's own pid namespace and those below it."""
    file = _file(arguments, "pid")
    if file is None:
        return None
    inode, own = os.stat(file).st_ino, os.stat("/proc/self/ns/pid").st_ino
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        above: int | None = inode
        path = f"/proc/self/fd/{fd}"
        if above != own:
            above = caps.parent(path)  # EPERM, None: its parent is out of our sight, so it is not below us
    finally:
        os.close(fd)
    return None if above is not None else "that pid namespace is not below this process's own, but above or beside it"


def joined_with_threads(arguments: Arguments) -> str | None:
    """User and mount namespaces: threads share their root and working folder."""
    asked = [kind for kind in ("user", "mnt") if _file(arguments, kind)]
    if not asked or (count := threads()) == 1:
        return None
    return f"this process has {count} threads, and a {asked[0]} namespace is entered by one with a single thread"


def joined_time_with_threads(arguments: Arguments) -> str | None:
    """A time namespace's clocks are a whole process's."""
    if not _file(arguments, "time") or (count := threads()) == 1:
        return None
    return f"this process has {count} threads, and a time namespace is entered by one with a single thread"


def join_without_admin(arguments: Arguments) -> str | None:
    """CAP_SYS_ADMIN here and where the namespace's owner is."""
    lacking = caps.no_admin(arguments)
    if lacking:
        return f"{lacking}, which entering a namespace needs"
    what, number = target(arguments[0])
    for kind in kinds(arguments[1]) if what == "pidfd" else [what]:
        file = f"/proc/{number}/ns/{kind}" if what == "pidfd" else f"/proc/self/fd/{arguments[0]}"
        if kind != "user" and caps.owner(file) is None:
            return f"that {kind} namespace belongs to a user namespace above this process's own"
    return None


def process_gone(arguments: Arguments) -> str | None:
    """A process that has ended is in no namespace."""
    what, pid = target(arguments[0])
    if what != "pidfd" or (pid > 0 and caps.status("State", pid)[:1] not in ("Z", "X")):
        return None
    return (
        "the process of that pidfd has ended"
        if pid <= 0
        else f"process {pid} has ended; its parent has yet to wait for it"
    )
