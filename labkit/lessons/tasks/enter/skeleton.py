# exercise: enter
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def enter(pid, words):
    """Run the program `words` (a list) in the mount, uts, ipc, net, pid and cgroup namespaces of the process `pid`.

    Return the pid of the program as the caller sees it. Do not wait for it. The caller may move.
    """
    ...
