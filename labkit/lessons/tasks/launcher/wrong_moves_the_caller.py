"""the caller itself has moved"""

import os

from labkit.kernel.syscalls import call


def launch(words, flags, name):
    call("unshare", flags)
    pid = os.fork()
    if pid:
        return pid
    try:
        call("sethostname", name, len(name.encode()))
        os.execvp(words[0], words)
    finally:
        os._exit(127)
