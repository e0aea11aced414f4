# exercise: psi-trigger
import os
import select


def wait_for_pressure(file, stall, window, patience):
    """Sleep until tasks in the cgroup had to wait, `stall` microseconds within `window` microseconds.

    file -- one of a cgroup's pressure files; what counts is its line `some`
    Return True then, or False when it did not happen within `patience` seconds.
    """
    ...
