# exercise: furnish
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def furnish(root, masked, frozen):
    """Before the pivot: make a small /dev in `root`, hide the paths `masked`, make the paths `frozen` read-only.

    /dev is a tmpfs with the devices null, zero, full, random, urandom and tty. A masked file reads as
    empty, a masked folder shows no file. `masked` and `frozen` are lists of paths that begin with `root`.
    """
    call("mount", "tmpfs", f"{root}/dev", "tmpfs", C.MS_NOSUID | C.MS_NOEXEC, "mode=755,size=64k")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        place = f"{root}/dev/{name}"
        os.close(os.open(place, os.O_CREAT))
        call("mount", f"/dev/{name}", place, None, C.MS_BIND, None)
    for path in masked:
        if os.path.isdir(path):
            call("mount", "tmpfs", path, "tmpfs", C.MS_RDONLY, "size=0k")
        else:
            call("mount", "/dev/null", path, None, C.MS_BIND, None)
    for path in frozen:
        call("mount", path, path, None, C.MS_BIND | C.MS_REC, None)
        # bind looks at no other flag: read-only needs a second call
        call("mount", None, path, None, C.MS_BIND | C.MS_REMOUNT | C.MS_RDONLY, None)
