"""is not the device"""

import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def furnish(root, masked, frozen):
    call("mount", "tmpfs", f"{root}/dev", "tmpfs", C.MS_NOSUID | C.MS_NOEXEC, "mode=755,size=64k")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        place = f"{root}/dev/{name}"
        os.close(os.open(place, os.O_CREAT))
    for path in masked:
        if os.path.isdir(path):
            call("mount", "tmpfs", path, "tmpfs", C.MS_RDONLY, "size=0k")
        else:
            call("mount", "/dev/null", path, None, C.MS_BIND, None)
    for path in frozen:
        call("mount", path, path, None, C.MS_BIND | C.MS_REC, None)
        # bind looks at no other flag: read-only needs a second call
        call("mount", None, path, None, C.MS_BIND | C.MS_REMOUNT | C.MS_RDONLY, None)
