"""cannot make the cgroup"""

import os


def delegate(group, uid):
    """Let the user `uid` make cgroups in the cgroup `group` (its folder), move its processes among them and hand on."""
    for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chown(os.path.join(group, name), uid, -1)
