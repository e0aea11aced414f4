"""Top floor: the check of delegate.

Owns: what the user must be able to do in the delegated cgroup, and what neither it nor another may.
Read: Documentation/admin-guide/cgroup-v2.rst, "Delegation".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong


def check(delegate: Callable[[Path, int], None], lab: Ground) -> None:
    """A process of the user, which root has put into the cgroup, tries it all; then a stranger."""
    group, name = lab.cgroup() / lab.token(), lab.token()
    group.mkdir()
    (group / "pids.max").write_text("50")
    uid = lab.number(20_000, 59_999)
    lab.child("caller").do(delegate, group, uid)
    user = lab.child("user")
    (group / "cgroup.procs").write_text(str(user.pid))
    Child.do(user, become, uid)
    tries = {
        f"make the cgroup {name}": (os.mkdir, group / name),
        f"move its own process to {name}": (write, group / name / "cgroup.procs", "0"),
        "hand on pids": (write, group / "cgroup.subtree_control", "+pids"),
        f"limit {name}": (write, group / name / "pids.max", "10"),
        "move a thread back": (write, group / "cgroup.threads", None),
    }
    for what, (function, *arguments) in tries.items():
        if said := Child.do(user, attempt, function, *arguments):
            raise Wrong(f"user {uid} cannot {what}: {said}")
    if not Child.do(user, attempt, write, group / "pids.max", "max"):
        raise Wrong(f"user {uid} can raise its own limit: pids.max of the group was 50 and is now "
                    f"{(group / 'pids.max').read_text().strip()}")  # fmt: skip
    stranger = lab.child("stranger")
    Child.do(stranger, become, uid + 1)
    if not Child.do(stranger, attempt, os.mkdir, group / "strange"):
        raise Wrong(f"user {uid + 1}, a stranger, can make cgroups in the group too")


def become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def write(file: Path, text: str | None) -> None:
    """Write; or, without a text, see whether one could."""
    with open(file, "w") as opened:
        if text is not None:
            opened.write(text)


def attempt(function: Callable[..., object], *arguments: object) -> str:
    """What the kernel says to it; nothing when it works."""
    try:
        function(*arguments)
    except OSError as error:
        return str(error.strerror)
    return ""
