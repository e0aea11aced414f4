"""a move into a cgroup is never refused"""

import os
from pathlib import Path


def start(group, words):
    """Start the program `words` (a list) in the cgroup `group` (its folder); return its pid."""
    pid = os.fork()
    if pid == 0:
        Path(group, "cgroup.procs").write_text("0")  # by its parent or by itself: it was born elsewhere
        os.execvp(words[0], words)
    return pid
