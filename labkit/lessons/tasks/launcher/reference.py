# exercise: launcher
import os

from labkit.kernel.syscalls import call, clone3


def launch(words, flags, name):
    """Start the program `words` (a list) in new namespaces of the kinds in `flags`.

    Its host name is `name`. Return its pid as the caller sees it.
    The caller stays in the namespaces that it is in.
    """
    pid = clone3(flags)  # a fork whose child is born inside
    if pid:
        return pid
    try:
        call("sethostname", name, len(name.encode()))
        os.execvp(words[0], words)
    finally:  # a failed child must never run the caller's code
        os._exit(127)
