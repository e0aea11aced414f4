"""Top floor: the check of host-name.

Owns: what the kernel must hold after rename(name).
Read: uts_namespaces(7), sethostname(2).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from labkit.kernel.namespaces import KINDS, inode
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong


def check(rename: Callable[[str], None], lab: Ground) -> None:
    """Look at the child's host name and the machine's, from outside."""
    name = lab.token(12)
    before = host_name(lab, lab.outside)
    child = lab.child()
    child.do(rename, name)
    seen, machine = host_name(lab, child.pid), host_name(lab, lab.outside)
    new = [kind for kind in KINDS if inode(kind, child.pid) != inode(kind, lab.outside)]
    if "uts" not in new:
        if new:
            raise Wrong(f"the child has a new {new[0]} namespace, but it still stands in the machine's uts namespace "
                        f"(uts:[{inode('uts', child.pid)}]): now the machine is called {machine}")  # fmt: skip
        if machine == before:
            raise Wrong(f"no host name was set, neither the child's nor the machine's: both are {machine}")
        raise Wrong(f"the child never left the machine's UTS namespace (both are in uts:[{inode('uts', child.pid)}]): "
                    f"now the machine is called {machine}")  # fmt: skip
    if machine != before:
        raise Wrong(f"the name was set before the namespace was left: the machine is called {machine} too")
    if seen != name:
        how = "only the beginning of" if name.startswith(seen) else f"{seen}, and not"
        raise Wrong(f"the child has a UTS namespace of its own, but its host name is {how} {name}")


def host_name(lab: Ground, pid: int) -> str:
    """What a process in the UTS namespace of `pid` is told."""
    return str(lab.inside(pid, ["uts"], os.uname).nodename)
