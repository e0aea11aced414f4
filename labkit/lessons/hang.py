"""Top floor: where a process hangs: in which line of the learner's, in which system call.

Owns: the numbers of the calls in which processes wait, and reading where one is now.

Read: proc_pid_syscall(5), proc_pid_wchan(5), faulthandler's documentation on its dump.
"""

from __future__ import annotations

import os
import re

from labkit.kernel import constants as C
from labkit.lessons.remote import source

# name: (x86-64, aarch64), -1 where there is none.  Calls that wait; labkit itself makes none of them.
WAITING = {
    "read": (0, 63), "readv": (19, 65), "write": (1, 64), "writev": (20, 66), "open": (2, -1), "openat": (257, 56),
    "pause": (34, -1), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    "wait4": (61, 260), "waitid": (247, 95),
    "poll": (7, -1), "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72),
    "epoll_wait": (232, -1), "epoll_pwait": (281, 22), "futex": (202, 98),
    "accept": (43, 202), "accept4": (288, 242), "connect": (42, 203),
    "recvfrom": (45, 207), "recvmsg": (47, 212), "sendto": (44, 206), "sendmsg": (46, 211),
    "flock": (73, 32), "fcntl": (72, 25), "fsync": (74, 82),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "semop": (65, 193), "msgrcv": (70, 188), "mq_timedreceive": (243, 183),
}  # fmt: skip
OWN = os.path.dirname(__file__)
FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$')


def system_call(pid: int) -> str:
    """The system call in which `pid` waits: its name, or its number; "" when it computes or cannot be read."""
    try:
        with open(f"/proc/{pid}/syscall") as file:
            word = file.read().split()[0]
    except (OSError, IndexError):
        return ""
    if not word.isdigit():
        return ""
    column = C.ARCHITECTURES.get(os.uname().machine)
    if column is not None:
        for name, numbers in {**C.SYSCALLS, **WAITING}.items():
            if numbers[column] == int(word):
                return name
    return f"system call number {word}"


def line(dump: str, prefer: str) -> str:
    """The learner's line in faulthandler's dump: the innermost in the file `prefer`, else outside the child's own."""
    frames = []
    for text in dump.splitlines():
        if found := FRAME.match(text):
            frames.append((found[1], int(found[2]), found[3]))
    frames = [frame for frame in frames if frame[0] != "<string>" and os.path.dirname(frame[0]) != OWN]
    for file, number, name in [frame for frame in frames if frame[0] == prefer] or frames:
        words = source(file, number)
        return f"line {number} of {name}()" + (f": {words}" if words else f" in {file}")
    return ""
