"""a stranger"""

import os


def delegate(group, uid):
    """Let the user `uid` make cgroups in the cgroup `group` (its folder), move its processes among them and hand on."""
    os.chmod(group, 0o777)
    for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chmod(os.path.join(group, name), 0o666)
