# exercise: limit
from pathlib import Path


def limit(parent, name, memory, cpus, pids, pid):
    """Make the cgroup `name` below the cgroup `parent` (a Path), and move the process `pid` into it.

    memory -- bytes, at most
    cpus   -- so much CPU time as this many CPUs have, at most: 0.5, 1, 2.25
    pids   -- processes, at most
    """
    ...
