"""the caller's own host name is now"""

import os

from labkit.kernel.syscalls import call, clone3


def launch(words, flags, name):
    call("sethostname", name, len(name.encode()))
    pid = clone3(flags)
    if pid:
        return pid
    try:
        os.execvp(words[0], words)
    finally:
        os._exit(127)
