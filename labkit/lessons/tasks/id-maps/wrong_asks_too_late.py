"""uid_map is still empty"""

import os
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def become_root():
    call("unshare", C.CLONE_NEWUSER)
    Path("/proc/self/uid_map").write_text(f"0 {os.geteuid()} 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"0 {os.getegid()} 1")
