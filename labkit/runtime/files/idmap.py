"""Floor 3: mounts with mapped numbers: the files are somebody else's only where they are looked at from here.

Owns: a user namespace that holds nothing but a mapping, and giving it to a detached mount.

Read: mount_setattr(2), "ID-mapped mounts" (Linux 5.12; which file systems, the page lists).
"""

from __future__ import annotations

import os

from labkit.errors import Refused
from labkit.kernel import constants as C
from labkit.kernel import mounts
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def apply(tree: int, entry: Mapping[str, Any], config: Mapping[str, Any], *, recursive: bool) -> None:
    """Map a detached tree by the entry's own mappings, else by the container's. Raises Refused."""
    linux = config.get("linux", {})
    users = entry.get("uidMappings") or linux.get("uidMappings", ())
    groups = entry.get("gidMappings") or linux.get("gidMappings", ())
    namespace = holder(users, groups)
    try:
        mounts.set_attributes(tree, on=C.MOUNT_ATTR_IDMAP, recursive=recursive, userns=namespace)
    except OSError as error:
        raise Refused(f"cannot map the numbers of {entry.get('source', '')}", status=1,
                      why=f"{error.strerror} (errno {error.errno}): its file system cannot, or it is mapped already",
                      next="a source on ext4, xfs, btrfs or tmpfs") from error  # fmt: skip
    finally:
        os.close(namespace)


def holder(users: Sequence[Mapping[str, int]], groups: Sequence[Mapping[str, int]]) -> int:
    """A descriptor of a user namespace with these mappings; the process that it was made for is gone again."""
    gate, opened = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            call("unshare", C.CLONE_NEWUSER)
            os.write(opened, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(opened)
    try:
        if os.read(gate, 1) != b"x":
            raise Refused("cannot make a user namespace for mapped numbers", status=1,
                          next="cat /proc/sys/user/max_user_namespaces")  # fmt: skip
        for file, mapping in (("uid_map", users), ("gid_map", groups)):
            lines = "".join(f"{one['containerID']} {one['hostID']} {one['size']}\n" for one in mapping)
            with open(f"/proc/{pid}/{file}", "w") as written:
                written.write(lines)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(gate)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
