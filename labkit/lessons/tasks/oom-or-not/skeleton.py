# exercise: oom-or-not
import os
from pathlib import Path


def verdict(group, start):
    """`start()` starts a program in the cgroup `group` (a Path) and returns its pid. Call it, wait, say how it ended:

    "out of memory" -- the kernel killed it for want of memory
    "killed"        -- somebody else sent SIGKILL
    a number        -- the status with which it ended by itself
    """
    ...
