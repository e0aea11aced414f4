"""cannot move its own process"""

import os


def delegate(group, uid):
    """Let the user `uid` make cgroups in the cgroup `group` (its folder), move its processes among them and hand on."""
    os.chown(group, uid, -1)
