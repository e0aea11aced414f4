# exercise: wait-for-start
import os


def hold(fifo, become):
    """In the container's process, when all is made: wait for `start`, then become the program."""
    line = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)  # for writing too: who opens it and goes is not the end
    os.read(line, 1)
    become()
