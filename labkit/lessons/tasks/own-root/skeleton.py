# exercise: own-root
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def pivot(folder):
    """Go into a new mount namespace whose only root is `folder`; nothing of the old root can be reached from it.

    The working folder is its /. No mount made on the way is to be seen outside.
    """
    ...
