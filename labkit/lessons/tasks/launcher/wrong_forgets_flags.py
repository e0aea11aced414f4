"""is still in the caller's namespace of the kind"""

import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call, clone3


def launch(words, flags, name):
    pid = clone3(C.CLONE_NEWUTS | C.CLONE_NEWPID)
    if pid:
        return pid
    try:
        call("sethostname", name, len(name.encode()))
        os.execvp(words[0], words)
    finally:
        os._exit(127)
