"""beside the group"""

import time


def end(group):
    """End everything in the cgroup `group` (a Path) and in all cgroups below it, and remove them all."""
    (group.parent / "cgroup.kill").write_text("1")
    while "populated 1" in (group / "cgroup.events").read_text():
        time.sleep(0.01)
    for folder in [*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group]:
        folder.rmdir()
