"""can raise its own limit"""

import os


def delegate(group, uid):
    """Let the user `uid` make cgroups in the cgroup `group` (its folder), move its processes among them and hand on."""
    os.chown(group, uid, -1)
    for name in os.listdir(group):
        os.chown(os.path.join(group, name), uid, -1)
