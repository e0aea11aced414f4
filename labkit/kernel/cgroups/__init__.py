"""Floor 1: control groups, version 2 only; one file a primitive.

tree        find the tree, turn controllers on, make, limit, read, kill, remove
life        be born inside, start a program inside, move, nest, delegate, freeze and thaw
events      wait until a file of events says something new, without asking again and again
forms       the four forms that the files' texts have, and `KEEP`: a limit that stays as it is
memory      limits, use, stat, events, reclaim
cpu         share, ceiling, burst, and what was used and withheld
cpuset      which processors and which memory nodes
pids        how many processes
io          bytes and operations a second of each block device, weight, latency
pressure    PSI: how long work stood still, and triggers
counted     hugetlb and misc, read only
devices     a container's device rules, as a BPF program

`from labkit.kernel import cgroups` brings tree's and life's functions, which `labkit run` needs;
each controller is imported by its name: `from labkit.kernel.cgroups import memory`.
"""

from labkit.kernel.cgroups.life import born, delegate, freeze, move, nest, start, thaw
from labkit.kernel.cgroups.tree import (
    attach,
    controllers,
    create,
    disable,
    enable,
    kill,
    limit,
    processes,
    read,
    read_table,
    remove,
    require,
    root,
    write,
)

__all__ = [
    "attach",
    "born",
    "controllers",
    "create",
    "delegate",
    "disable",
    "enable",
    "freeze",
    "kill",
    "limit",
    "move",
    "nest",
    "processes",
    "read",
    "read_table",
    "remove",
    "require",
    "root",
    "start",
    "thaw",
    "write",
]
