"""and not 'out of memory'"""

import os


def verdict(group, start):
    """How a program ended that `start()` starts in the cgroup `group`."""
    status = os.waitpid(start(), 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else "killed"
