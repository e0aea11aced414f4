"""it said True, and the program did not begin"""

# exercise: let-go
import os


def start(fifo):
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    os.unlink(fifo)
    return True
