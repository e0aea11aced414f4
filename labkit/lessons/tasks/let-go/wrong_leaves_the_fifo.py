"""the FIFO is still there"""

# exercise: let-go
import os


def start(fifo):
    try:
        line = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    os.write(line, b"\0")
    os.close(line)
    return True
