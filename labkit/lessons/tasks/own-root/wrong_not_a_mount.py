"""pivot_root refused"""

import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def pivot(folder):
    call("unshare", C.CLONE_NEWNS)
    call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)
    os.chdir(folder)
    call("pivot_root", ".", ".")
    call("umount2", ".", C.MNT_DETACH)
    os.chdir("/")
