"""Floor 1: processes: who they are, what they are called, how they end.

Owns: recognising a process again (a pid alone is reused), the names that `ps` shows,
and the prctl(2) switches of the calling process.

Read: proc_pid_stat(5), prctl(2), pidfd_open(2).
"""

from __future__ import annotations

import os
import time

from labkit import leanctypes as ctypes
from labkit.errors import Refused
from labkit.kernel import constants as C
from labkit.kernel import mounts
from labkit.kernel.syscalls import call, openat2
from labkit.lean import contents, signal

_room: tuple[int, int] | None = None


def start_time(pid: int) -> int | None:
    """When `pid` began, in clock ticks since boot (field 22 of its stat); None when it is gone.

    pid and start time together name one process for ever, until the next boot.
    """
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def parent(pid: int) -> int | None:
    """The pid of the parent; None when `pid` is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def of_the_kernel(pid: int) -> bool | None:
    """Whether it is a kernel thread, by its flags (field 9), which anybody may read; None when it is gone."""
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return bool(int(fields[6]) & C.PF_KTHREAD)


def _stat(pid: int | str) -> list[str] | None:
    try:
        text = contents(f"/proc/{pid}/stat").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in field 2 may hold spaces and brackets: only the last bracket ends it.
    return text.rpartition(") ")[2].split()


def is_alive(pid: int, start: int | None) -> bool:
    """Whether the very process that began at `start` still runs."""
    return start is not None and start_time(pid) == start


def kill(pid: int, start: int | None, number: int = signal.SIGKILL) -> bool:
    """Send a signal to that very process; False when it is gone already.

    A pidfd closes the gap in which the pid could pass to somebody else.
    """
    try:
        fd = call("pidfd_open", pid, 0)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(pid, start):
            return False
        call("pidfd_send_signal", fd, number, None, 0)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def await_end(pid: int, start: int | None, seconds: float = 5.0) -> bool:
    """Wait until that very process has ended, and with it its hold on ports and files; False when it does not."""
    deadline = time.monotonic() + seconds
    while is_alive(pid, start):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def die_with_parent() -> None:
    """Get SIGKILL when the parent's thread ends; not kept over a change of credentials."""
    call("prctl", C.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def own_file(name: str, flags: int) -> int:
    """A descriptor of /proc/self/NAME, of the kernel's own proc and of nothing that was laid over a part of it.

    For a process that may see a container's files already: an image can bring others under these names
    (CVE-2025-52881).  Raises OSError, Refused.
    """
    proc = os.open("/proc", C.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if mounts.magic(proc) != C.PROC_SUPER_MAGIC:
            raise Refused("/proc is no proc file system here", status=1,
                          why=f"what is written to /proc/self/{name} would not reach the kernel")  # fmt: skip
        resolve = C.RESOLVE_BENEATH | C.RESOLVE_NO_XDEV | C.RESOLVE_NO_MAGICLINKS
        return openat2(proc, f"self/{name}", flags, resolve=resolve)
    finally:
        os.close(proc)


def hide_memory() -> None:
    """Make /proc/self/{exe,environ,mem,...} unreadable to others (ptrace(2): dumpable)."""
    call("prctl", C.PR_SET_DUMPABLE, 0, 0, 0, 0)


def forbid_new_privileges() -> None:
    """From now on no execve grants more than this process has (no set-user-ID)."""
    call("prctl", C.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def title_room() -> tuple[int, int]:
    """Where this process's command line lies in its memory; looked up once, and the same in whatever it forks.

    A process on its way into a container asks before: there a file of the image's may stand under the name in /proc,
    and the title would be written wherever in memory it says.
    """
    global _room
    if _room is None:
        # Not getpid(): in a new pid namespace that is 1, and /proc, still the old one, means another's 1.
        fields = _stat("self") or []
        _room = (int(fields[45]), int(fields[46])) if len(fields) >= 47 else (0, 0)
    return _room


def set_title(title: str) -> None:
    """Be called `title` in `ps`: the short name and the command line.

    The command line is the memory between arg_start and arg_end (fields 48 and 49 of
    /proc/self/stat); the kernel reads it afresh each time somebody asks.
    """
    call("prctl", C.PR_SET_NAME, title[:15], 0, 0, 0)
    start, end = title_room()
    if not start:
        return
    room = (ctypes.c_char * (end - start)).from_address(start)
    room.raw = title.encode()[: end - start - 1].ljust(end - start, b"\0")
