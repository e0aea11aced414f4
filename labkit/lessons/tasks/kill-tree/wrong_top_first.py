"""The deepest must go first"""

import time


def end(group):
    """End everything in the cgroup `group` (a Path) and in all cgroups below it, and remove them all."""
    (group / "cgroup.kill").write_text("1")
    while "populated 1" in (group / "cgroup.events").read_text():
        time.sleep(0.01)
    group.rmdir()
