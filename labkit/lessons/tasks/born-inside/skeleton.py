# exercise: born-inside
import os

from labkit.kernel.syscalls import clone3


def start(group, words):
    """Start the program `words` (a list) in the cgroup `group` (its folder); return its pid.

    It is never anywhere else: the cgroup's limits hold for its very birth. The caller stays where it is.
    """
    ...
