# exercise: oom-or-not
import os
from pathlib import Path


def kills(group):
    """How many processes of the cgroup the kernel has killed for want of memory."""
    lines = Path(group, "memory.events").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def verdict(group, start):
    """How a program ended that `start()` starts in the cgroup `group`."""
    before = kills(group)
    status = os.waitpid(start(), 0)[1]
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    return "out of memory" if kills(group) > before else "killed"
