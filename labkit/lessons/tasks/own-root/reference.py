# exercise: own-root
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def pivot(folder):
    """Go into a new mount namespace whose only root is `folder`; nothing of the old root can be reached from it.

    The working folder is its /. No mount made on the way is to be seen outside.
    """
    call("unshare", C.CLONE_NEWNS)
    call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)  # a copy of a shared mount is shared with it
    call("mount", folder, folder, None, C.MS_BIND | C.MS_REC, None)  # a root must be a mount
    os.chdir(folder)
    call("pivot_root", ".", ".")  # the old root now lies on top of the new one
    call("umount2", ".", C.MNT_DETACH)
    os.chdir("/")
