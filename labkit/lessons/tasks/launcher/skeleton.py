# exercise: launcher
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call, clone3


def launch(words, flags, name):
    """Start the program `words` (a list) in new namespaces of the kinds in `flags`.

    Its host name is `name`. Return its pid as the caller sees it.
    The caller stays in the namespaces that it is in.
    """
    ...
