"""some time before"""

import os
from pathlib import Path


def verdict(group, start):
    """How a program ended that `start()` starts in the cgroup `group`."""
    status = os.waitpid(start(), 0)[1]
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    lines = Path(group, "memory.events").read_text().splitlines()
    count = next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return "out of memory" if count else "killed"
