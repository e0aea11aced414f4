"""and not in"""

import os

from labkit.kernel.syscalls import clone3


def start(group, words):
    """Start the program `words` (a list) in the cgroup `group` (its folder); return its pid."""
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    pid = clone3(0)
    os.close(folder)
    if pid == 0:
        os.execvp(words[0], words)
    return pid
