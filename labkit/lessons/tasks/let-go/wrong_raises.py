"""start() raised OSError"""

# exercise: let-go
import os


def start(fifo):
    if not os.path.exists(fifo):
        return False
    line = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    os.write(line, b"\0")
    os.close(line)
    os.unlink(fifo)
    return True
