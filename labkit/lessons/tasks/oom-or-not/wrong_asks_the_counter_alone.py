"""a child of it was killed"""

import os
from pathlib import Path


def kills(group):
    lines = Path(group, "memory.events").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def verdict(group, start):
    """How a program ended that `start()` starts in the cgroup `group`."""
    before = kills(group)
    status = os.waitpid(start(), 0)[1]
    if kills(group) > before:
        return "out of memory"
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else "killed"
