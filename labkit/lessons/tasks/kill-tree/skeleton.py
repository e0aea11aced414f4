# exercise: kill-tree
import time
from pathlib import Path


def end(group):
    """End everything in the cgroup `group` (a Path) and in all cgroups below it, and remove them all.

    What is inside may fork as fast as it can. When this returns, the folder is gone.
    """
    ...
