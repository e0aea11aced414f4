# exercise: init
import os
import signal


def be_init(words):
    """Called in process 1 of a new pid namespace: start the program `words` (a list) and stay.

    Pass SIGTERM, SIGINT and SIGHUP on to the program, take in every process that has ended,
    and return when the program ends: its exit status, or 128 + the signal that ended it.
    """
    ...
