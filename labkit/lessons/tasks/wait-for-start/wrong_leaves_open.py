"""the program holds the FIFO"""

# exercise: wait-for-start
import os


def hold(fifo, become):
    line = os.open(fifo, os.O_RDWR)
    os.set_inheritable(line, True)
    os.read(line, 1)
    become()
