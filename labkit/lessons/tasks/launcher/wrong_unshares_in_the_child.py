"""is not process 1 of a new pid namespace"""

import os

from labkit.kernel.syscalls import call


def launch(words, flags, name):
    pid = os.fork()
    if pid:
        return pid
    try:
        call("unshare", flags)
        call("sethostname", name, len(name.encode()))
        os.execvp(words[0], words)
    finally:
        os._exit(127)
