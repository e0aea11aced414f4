# exercise: id-maps
import os
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def become_root():
    """Called by an ordinary user: go into a new user namespace and be user 0 and group 0 there."""
    user, group = os.geteuid(), os.getegid()  # afterwards they read 65534: nothing is mapped yet
    call("unshare", C.CLONE_NEWUSER)
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/setgroups").write_text("deny")  # or nobody without privilege may write gid_map
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
