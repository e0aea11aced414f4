"""can be seen outside"""

import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def pivot(folder):
    call("unshare", C.CLONE_NEWNS)
    call("mount", folder, folder, None, C.MS_BIND | C.MS_REC, None)
    os.chdir(folder)
    call("pivot_root", ".", ".")
    call("umount2", ".", C.MNT_DETACH)
    os.chdir("/")
