"""its host name is"""

import os

from labkit.kernel.syscalls import clone3


def launch(words, flags, name):
    pid = clone3(flags)
    if pid:
        return pid
    try:
        os.execvp(words[0], words)
    finally:
        os._exit(127)
