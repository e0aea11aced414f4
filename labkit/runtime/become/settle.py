"""Floor 3: the child's limits and habits, while it still is root and has its powers.

Owns: `early`, what is written below the machine's own /proc, before the pivot takes it out of
reach (in the container's, somebody could have put another file there: CVE-2025-52881), and
`settle`, what is set by system calls.

Read: proc_pid_oom_score_adj(5), prlimit(2), session-keyring(7), sched(7), personality(2); apparmor's and SELinux's
files in proc_pid_attr(5).
"""

from __future__ import annotations

import errno
import os

from labkit.errors import Refused
from labkit.kernel import constants as C
from labkit.kernel import limits, process
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING
from labkit.runtime.become.ready import Ready

if TYPE_CHECKING:
    from typing import Any, NoReturn

PERSONALITIES = {"LINUX": C.PER_LINUX, "LINUX32": C.PER_LINUX32}
# Below /proc/self: AppArmor's own file (Linux 5.8), so that it can be stacked with another module; and the old one.
APPARMOR = ("attr/apparmor/exec", "attr/exec")
SCHEDULER = ("nice", "priority", "flags", "runtime", "deadline", "period")
SELINUX = "attr/exec"


def early(ready: Ready) -> None:
    """The out-of-memory score, and the label that execve will give: into /proc/self of a real proc, or not at all.

    Call it before the pivot, and after the hooks that this process starts: the label is given to whatever it
    executes next.  Raises Refused where this kernel has no such label.
    """
    wanted = ready.process
    if "oomScoreAdj" in wanted:
        try:
            if _read("oom_score_adj") != str(wanted["oomScoreAdj"]):  # the maker may have been here
                _write("oom_score_adj", str(wanted["oomScoreAdj"]))
        except OSError as error:
            _fail(error, "process.oomScoreAdj", f"cannot set the out-of-memory score to {wanted['oomScoreAdj']}",
                  "lowering it needs CAP_SYS_RESOURCE outside the container")  # fmt: skip
    if profile := wanted.get("apparmorProfile"):
        _label(APPARMOR, f"exec {profile}", "process.apparmorProfile", profile)
    if label := wanted.get("selinuxLabel"):
        _label((SELINUX,), label, "process.selinuxLabel", label)


def _label(files: tuple[str, ...], text: str, field: str, name: str) -> None:
    failed: OSError | None = None
    for file in files:
        try:
            _write(file, text)
            return
        except OSError as error:
            failed = failed or error
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                break
    assert failed is not None
    _fail(failed, field, f"cannot give the label {name!r} to the program",
          "this kernel's security module does not know it, or there is none",
          "cat /sys/kernel/security/lsm; aa-status lists AppArmor's profiles")  # fmt: skip


def settle(ready: Ready) -> None:
    """Umask, limits, scheduling, disk priority, processors, personality. Raises Refused, BadInput."""
    wanted = ready.process
    os.umask(wanted.get("user", {}).get("umask", 0o022))
    for limit in ready.limits:
        try:
            limits.put(0, limit.number, limit.soft, limit.hard)
        except OSError as error:
            _fail(error, "process.rlimits", f"cannot set {limit.name} to {limit.soft} and {limit.hard}",
                  "raising a hard limit needs CAP_SYS_RESOURCE, and RLIMIT_NOFILE ends at fs.nr_open")  # fmt: skip
    if scheduler := wanted.get("scheduler"):
        from labkit.kernel import schedule

        given: dict[str, Any] = {name: scheduler[name] for name in SCHEDULER if name in scheduler}
        try:
            schedule.set_policy(scheduler["policy"], **given)
        except OSError as error:
            _fail(error, "process.scheduler", f"cannot schedule by {scheduler['policy']}",
                  "a real-time policy needs CAP_SYS_NICE, and a cgroup that has real-time microseconds")  # fmt: skip
    if priority := wanted.get("ioPriority"):
        from labkit.kernel import schedule

        try:
            schedule.set_io_priority(priority["class"], priority.get("priority", 0))
        except OSError as error:
            _fail(error, "process.ioPriority", f"cannot set {priority['class']}", "levels go from 0 to 7")
    if ready.personality:
        try:
            call("personality", PERSONALITIES[ready.personality])
        except OSError as error:
            _fail(error, "linux.personality", f"cannot become a {ready.personality} machine",
                  "this kernel runs no 32-bit programs")  # fmt: skip


def from_outside(ready: Ready, pid: int | str) -> None:
    """Do for a process that is (or is going to be) in a user namespace what nobody may in there.

    Its out-of-memory score and higher hard limits take powers of the machine (user_namespaces(7)).  What cannot be had
    here either is said by `early` and `settle`.
    """
    if "oomScoreAdj" in ready.process:
        try:
            with open(f"/proc/{pid}/oom_score_adj", "w") as file:
                file.write(str(ready.process["oomScoreAdj"]))
        except OSError:
            pass
    pid = 0 if pid == "self" else int(pid)
    for limit in ready.limits:
        soft, hard = limits.get(pid, limit.number)
        if limit.hard > hard:
            try:
                limits.put(pid, limit.number, soft, limit.hard)
            except OSError:
                return


def own_keyring(name: str) -> None:
    """Leave the caller's session keyring, whose keys the program could read, for one of the container's.

    All processes of the container share it by its name.  Raises Refused where the user's quota of keys is used up.
    """
    try:
        ring = call("keyctl", C.KEYCTL_JOIN_SESSION_KEYRING, name, 0, 0, 0)
        # By default not even its owner may search for it, and so a later process could not join it.
        call("keyctl", C.KEYCTL_SETPERM, ring, C.KEY_POS_ALL | C.KEY_USR_VIEW | C.KEY_USR_READ | C.KEY_USR_SEARCH, 0, 0)
    except OSError as error:
        if error.errno == errno.ENOSYS:  # a kernel without keys has none to hide
            return
        _fail(error, "session keyring", f"cannot join {name}", "too many containers' keyrings for one user",
              "cat /proc/key-users; or --no-new-keyring, which leaves the caller's keys to the program")  # fmt: skip


def pin(ready: Ready, when: str) -> None:
    """For `exec`: run on execCPUAffinity's processors; `when` is initial (before the cgroup) or final (after).

    Raises BadInput for a list, Refused for processors that this machine or the cgroup does not give.
    """
    text = ready.process.get("execCPUAffinity", {}).get(when, "")
    if not text:
        return
    from labkit.kernel import schedule

    try:
        schedule.pin(text)
    except OSError as error:
        _fail(error, f"process.execCPUAffinity.{when}", f"cannot run on {text}", "cat /sys/devices/system/cpu/online")


def _read(name: str) -> str:
    with open(process.own_file(name, os.O_RDONLY)) as opened:
        return opened.read().strip()


def _write(name: str, text: str) -> None:
    fd = process.own_file(name, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _fail(error: Exception, field: str, what: str, why: str, next: str = "") -> NoReturn:
    words = f"{error.strerror} (errno {error.errno})" if isinstance(error, OSError) else str(error)
    raise Refused(f"{field}: {what}", why=f"{words}: {why}", next=next, status=1) from error
