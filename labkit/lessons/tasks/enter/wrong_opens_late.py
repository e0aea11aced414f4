"""No such file or directory"""

import os

from labkit.kernel.syscalls import call


def enter(pid, words):
    for kind in ("mnt", "uts", "ipc", "net", "pid", "cgroup"):
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        call("setns", fd, 0)
        os.close(fd)
    child = os.fork()
    if child:
        return child
    try:
        os.execvp(words[0], words)
    finally:
        os._exit(127)
