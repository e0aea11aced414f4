"""Top floor: the check of id-maps.

Owns: the ordinary user who calls, and what the kernel's maps of that process must say.
Read: user_namespaces(7), proc_pid_uid_map(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel import constants as C
from labkit.kernel.namespaces import inode
from labkit.kernel.syscalls import call
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import container as see


def check(become_root: Callable[[], None], lab: Ground) -> None:
    """Look at the maps in /proc, and at the owner of a file that the new root makes."""
    user, group = lab.number(20_000, 29_999), lab.number(30_000, 39_999)
    folder = lab.folder()
    folder.chmod(0o777)
    if not allowed(lab):
        raise LabError("this machine forbids user namespaces to ordinary users",
                       next="sysctl user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns")  # fmt: skip
    caller = lab.child("user")
    Child.do(caller, be_user, user, group, stage="user")
    before = inode("user", caller.pid)
    failed = None
    try:
        caller.do(become_root)
    except Exception as error:
        failed = error
    look(caller.pid, before, user, group, failed)
    if failed is not None:
        raise failed
    place = folder / lab.token()
    Child.do(caller, place.touch, stage="touch")
    owner = place.stat()
    if (owner.st_uid, owner.st_gid) != (user, group):
        raise Wrong(f"a file that it makes belongs to {owner.st_uid}:{owner.st_gid} here, and not to {user}:{group}")


def look(pid: int, before: int, user: int, group: int, failed: Exception | None) -> None:
    """Compare the maps of a process with what was asked for."""
    if inode("user", pid) == before:
        if failed is not None:
            raise failed
        raise Wrong(f"process {pid} is still in the user namespace it came from, as user {user}")
    said = f"; the function raised {type(failed).__name__}" if failed is not None else ""
    users, groups = (tuple(Path(f"/proc/{pid}/{name}_map").read_text().split()) for name in ("uid", "gid"))
    if not users:
        raise Wrong(f"in the new user namespace uid_map is still empty: inside, user {user} has no number{said}. "
                    "An ordinary user may map one number there: its own, as it was outside")  # fmt: skip
    if not groups and failed is not None and Path(f"/proc/{pid}/setgroups").read_text().strip() == "allow":
        raise Wrong(f"gid_map was refused: /proc/{pid}/setgroups still says allow")
    if not groups:
        raise Wrong(f"uid_map says {' '.join(users)}, and gid_map is empty: inside, its group has no number{said}")
    if users != ("0", str(user), "1"):
        raise Wrong(f"uid_map says {' '.join(users)}: inside, its user is not 0. It must say 0 {user} 1")
    if groups != ("0", str(group), "1"):
        raise Wrong(f"gid_map says {' '.join(groups)}: inside, its group is not 0. It must say 0 {group} 1")
    if see.status(pid)["Uid"].split()[0] != str(user):
        raise Wrong(f"seen from here, process {pid} is user {see.status(pid)['Uid'].split()[0]}, and not {user}")


def be_user(user: int, group: int) -> None:
    """In a child: give up being root for good."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # A change of user takes /proc/self away from its owner until the next execve; a login shell has had one.
    call("prctl", C.PR_SET_DUMPABLE, 1, 0, 0, 0)


def allowed(lab: Ground) -> bool:
    """Whether an ordinary user may make a user namespace at all."""
    one = lab.child("probe")
    Child.do(one, be_user, 65533, 65533, stage="user")
    with contextlib.suppress(OSError):
        Child.do(one, call, "unshare", C.CLONE_NEWUSER, stage="probe")
        return True
    return False
