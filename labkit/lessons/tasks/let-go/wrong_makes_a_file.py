"""said True of a container that was started before"""

# exercise: let-go
import os


def start(fifo):
    try:
        line = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CREAT)
    except OSError:
        return False
    os.write(line, b"\0")
    os.close(line)
    os.unlink(fifo)
    return True
