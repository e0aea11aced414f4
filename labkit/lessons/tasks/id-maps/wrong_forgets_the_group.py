"""gid_map is empty"""

import os
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def become_root():
    user = os.geteuid()
    call("unshare", C.CLONE_NEWUSER)
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/setgroups").write_text("deny")
