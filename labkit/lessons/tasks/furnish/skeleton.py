# exercise: furnish
import os
import stat

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def furnish(root, masked, frozen):
    """Before the pivot: make a small /dev in `root`, hide the paths `masked`, make the paths `frozen` read-only.

    /dev is a tmpfs with the devices null, zero, full, random, urandom and tty. A masked file reads as
    empty, a masked folder shows no file. `masked` and `frozen` are lists of paths that begin with `root`.
    """
    ...
