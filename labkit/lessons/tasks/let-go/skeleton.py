# exercise: let-go
import errno
import os


def start(fifo):
    """Let the process that waits at this FIFO go on: True; False if nobody waits there (any more).

    It never waits itself, and what it has let go, nobody can let go a second time.
    """
    ...
