"""the old root is still mounted"""

import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def pivot(folder):
    call("unshare", C.CLONE_NEWNS)
    call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)
    call("mount", folder, folder, None, C.MS_BIND | C.MS_REC, None)
    os.mkdir(f"{folder}/old")
    os.chdir(folder)
    call("pivot_root", ".", "old")
    os.chdir("/")
