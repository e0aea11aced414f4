# exercise: let-go
import errno
import os


def start(fifo):
    """Let the process that waits at this FIFO go on: True; False if nobody waits there (any more)."""
    try:
        line = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):  # nobody reads; no FIFO
            return False
        raise
    os.write(line, b"\0")
    os.close(line)
    os.unlink(fifo)
    return True
