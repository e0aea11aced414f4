"""inside, its user is not 0"""

import os
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def become_root():
    user, group = os.geteuid(), os.getegid()
    call("unshare", C.CLONE_NEWUSER)
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
