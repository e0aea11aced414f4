"""is another process than the one that waited"""

# exercise: wait-for-start
import os


def hold(fifo, become):
    line = os.open(fifo, os.O_RDWR)
    os.read(line, 1)
    if os.fork() == 0:
        become()
    os.wait()
