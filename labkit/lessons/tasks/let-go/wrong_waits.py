"""did not end within"""

# exercise: let-go
import os


def start(fifo):
    if not os.path.exists(fifo):
        return False
    with open(fifo, "wb") as line:
        line.write(b"\0")
    os.unlink(fifo)
    return True
