"""the program ran before anybody had written"""

# exercise: wait-for-start
import os


def hold(fifo, become):
    line = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.read(line, 1)
    become()
