# exercise: wait-for-start
import os


def hold(fifo, become):
    """In the container's process, when all is made: wait for `start`, then become the program.

    fifo -- the path of a FIFO, which is there; start writes one byte into it
    become -- become() is execve: it does not return
    """
    ...
