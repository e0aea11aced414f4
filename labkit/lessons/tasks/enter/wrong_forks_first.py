"""has no number in the target's pid namespace"""

import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def enter(pid, words):
    kinds = C.CLONE_NEWNS | C.CLONE_NEWUTS | C.CLONE_NEWIPC | C.CLONE_NEWNET | C.CLONE_NEWPID | C.CLONE_NEWCGROUP
    child = os.fork()
    if child:
        return child
    try:
        call("setns", call("pidfd_open", pid, 0), kinds)
        os.execvp(words[0], words)
    finally:
        os._exit(127)
