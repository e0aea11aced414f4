# exercise: enter
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def enter(pid, words):
    """Run the program `words` (a list) in the mount, uts, ipc, net, pid and cgroup namespaces of the process `pid`.

    Return the pid of the program as the caller sees it. Do not wait for it. The caller may move.
    """
    kinds = C.CLONE_NEWNS | C.CLONE_NEWUTS | C.CLONE_NEWIPC | C.CLONE_NEWNET | C.CLONE_NEWPID | C.CLONE_NEWCGROUP
    fd = call("pidfd_open", pid, 0)
    call("setns", fd, kinds)  # all at once: no way into /proc is needed afterwards
    os.close(fd)
    child = os.fork()  # the pid namespace takes in children only
    if child:
        return child
    try:
        os.execvp(words[0], words)
    finally:
        os._exit(127)
