# exercise: id-maps
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def become_root():
    """Called by an ordinary user: go into a new user namespace and be user 0 and group 0 there."""
    ...
