"""is not the program"""

import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def enter(pid, words):
    kinds = C.CLONE_NEWNS | C.CLONE_NEWUTS | C.CLONE_NEWIPC | C.CLONE_NEWNET | C.CLONE_NEWPID | C.CLONE_NEWCGROUP
    call("setns", call("pidfd_open", pid, 0), kinds)
    mine, yours = os.pipe()
    if os.fork():
        return int(os.read(mine, 20))
    try:
        os.write(yours, str(os.getpid()).encode())
        os.execvp(words[0], words)
    finally:
        os._exit(127)
