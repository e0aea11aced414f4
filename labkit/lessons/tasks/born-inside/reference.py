# exercise: born-inside
import os

from labkit.kernel.syscalls import clone3


def start(group, words):
    """Start the program `words` (a list) in the cgroup `group` (its folder); return its pid."""
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pid = clone3(0, cgroup_fd=folder)
    finally:
        os.close(folder)
    if pid == 0:
        try:
            os.execvp(words[0], words)
        finally:
            os._exit(127)
    return pid
