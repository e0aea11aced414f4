"""Floor 1: why mount(2) or umount2(2) failed on this machine.

Owns: one finder for each condition that the kernel's fs/namespace.c and fs/super.c check.
mount's arguments are (source, target, type, flags, data), umount2's (target, flags).

Read: mount(2), umount(2), mount_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from labkit.kernel import causes_caps as caps
from labkit.kernel import constants as C
from labkit.kernel import mountinfo
from labkit.kernel.causes_pivot import locked

Arguments = tuple[Any, ...]

PROPAGATION = C.MS_SHARED | C.MS_PRIVATE | C.MS_SLAVE | C.MS_UNBINDABLE
# FS_USERNS_MOUNT in the kernel's source: what a user namespace's root may mount afresh.
IN_USER_NAMESPACES = {
    *("tmpfs", "ramfs", "proc", "sysfs", "devpts", "mqueue"),
    *("cgroup", "cgroup2", "overlay", "fuse", "binder", "bpf"),
}
LOCKED_FLAGS = {"ro": C.MS_RDONLY, "nosuid": C.MS_NOSUID, "nodev": C.MS_NODEV, "noexec": C.MS_NOEXEC}


def is_bind(arguments: Arguments) -> bool:
    """mount(2) tries remount, bind, propagation, move and a new mount in this order."""
    return bool(arguments[3] & C.MS_BIND) and not arguments[3] & C.MS_REMOUNT


def is_new(arguments: Arguments) -> bool:
    """Whether a file system is to be mounted, no mount changed."""
    return not arguments[3] & (C.MS_REMOUNT | C.MS_BIND | PROPAGATION | C.MS_MOVE)


def is_move(arguments: Arguments) -> bool:
    """Whether a mount is to be moved."""
    return bool(arguments[3] & C.MS_MOVE) and not arguments[3] & (C.MS_REMOUNT | C.MS_BIND | PROPAGATION)


def _in_a_user_namespace() -> bool:
    return caps.has(caps.CAP_SYS_ADMIN) and not caps.in_first_user_namespace()


# --- EPERM ----------------------------------------------------------------------------


def locked_flags(arguments: Arguments) -> str | None:
    """A remount that would clear a flag that came from a more privileged mount namespace."""
    if not arguments[3] & C.MS_REMOUNT or not _in_a_user_namespace():
        return None
    mount = mountinfo.mount_at(os.fspath(arguments[1]))
    lost = [name for name, bit in LOCKED_FLAGS.items() if mount and name in mount.options and not arguments[3] & bit]
    if mount is None or not lost:
        return None
    return f"the mount on {mount.place} came with {','.join(lost)}, which only the namespace it came from may clear"


def not_for_user_namespaces(arguments: Arguments) -> str | None:
    """A file system that only the machine's own root may mount."""
    kind = str(arguments[2])
    if not is_new(arguments) or not _in_a_user_namespace() or kind.partition(".")[0] in IN_USER_NAMESPACES:
        return None
    return f"this is a user namespace's root, and the kernel lets only the machine's own mount {kind}"


def proc_of_another(arguments: Arguments) -> str | None:
    """proc shows the caller's pid namespace, and that belongs to a user namespace above."""
    if arguments[2] != "proc" or not is_new(arguments) or caps.owner("/proc/self/ns/pid") is not None:
        return None
    return "proc shows this process's pid namespace, which belongs to a more privileged user namespace"


def sysfs_of_another(arguments: Arguments) -> str | None:
    """sysfs shows the caller's network namespace, and that belongs to a user namespace above."""
    if arguments[2] != "sysfs" or not is_new(arguments) or caps.owner("/proc/self/ns/net") is not None:
        return None
    return "sysfs shows this process's network namespace, which belongs to a more privileged user namespace"


def too_revealing(arguments: Arguments) -> str | None:
    """A fresh proc or sysfs would show what mounts on the present one hide."""
    kind = arguments[2]
    if kind not in ("proc", "sysfs") or not is_new(arguments) or not _in_a_user_namespace():
        return None
    mounts = mountinfo.table()
    whole = {mount.id for mount in mounts.values() if mount.kind == kind}
    over = sorted(mount.place for mount in mounts.values() if mount.parent in whole and os.path.isdir(mount.place))
    if not over:
        return None
    return f"a new {kind} would show what is hidden here under mounts on the present one: {', '.join(over[:4])}"


# --- EINVAL ---------------------------------------------------------------------------


def source_unbindable(arguments: Arguments) -> str | None:
    """A bind of a mount that is marked as not to be bound."""
    if not is_bind(arguments):
        return None
    mount = mountinfo.table().get(mountinfo.where(os.fspath(arguments[0])).id)
    if mount is None or "unbindable" not in mount.tags:
        return None
    return f"the mount on {mount.place}, which {os.fspath(arguments[0])} is on, is unbindable"


def source_of_another_namespace(arguments: Arguments) -> str | None:
    """A bind from a mount namespace that is not the caller's."""
    if not is_bind(arguments):
        return None
    place = mountinfo.where(os.fspath(arguments[0]))
    for pid, mounts in mountinfo.neighbours(same=False):
        if place.id in mounts and mountinfo.known(place.id) is None:
            return f"{arguments[0]} leads to {place.path} in another mount namespace, that of process {pid}"
    return None


def locked_below(arguments: Arguments) -> str | None:
    """A bind without what is mounted below would uncover what locked mounts hide."""
    if not is_bind(arguments) or arguments[3] & C.MS_REC or not _in_a_user_namespace():
        return None
    path = mountinfo.where(os.fspath(arguments[0])).path.rstrip("/") + "/"
    below = [mount.place for mount in mountinfo.table().values() if mount.place.startswith(path)]
    held = [place for place in below if locked(place)]
    return (
        f"mounts below {arguments[0]} hide what is under them and are locked: {', '.join(held[:4])}" if held else None
    )


def several_propagations(arguments: Arguments) -> str | None:
    """Two kinds of propagation, or other flags beside one."""
    asked = arguments[3] & PROPAGATION
    rest = arguments[3] & ~(PROPAGATION | C.MS_REC | 0x8000)  # MS_SILENT
    if not asked or arguments[3] & (C.MS_BIND | C.MS_REMOUNT) or (asked.bit_count() == 1 and not rest):
        return None
    return "a change of propagation takes exactly one of shared, private, slave, unbindable, and no other flag"


def propagation_of_no_mount(arguments: Arguments) -> str | None:
    """Only a mount has a propagation."""
    if not arguments[3] & PROPAGATION or mountinfo.mount_at(os.fspath(arguments[1])) is not None:
        return None
    return f"{arguments[1]} has no propagation: it is not a mount point"


def remount_of_no_mount(arguments: Arguments) -> str | None:
    """Only a mount has flags."""
    if not arguments[3] & C.MS_REMOUNT or mountinfo.mount_at(os.fspath(arguments[1])) is not None:
        return None
    return f"{arguments[1]} has no flags to change: it is not a mount point"


def move_of_no_mount(arguments: Arguments) -> str | None:
    """Only a mount can be moved."""
    if not is_move(arguments) or mountinfo.mount_at(os.fspath(arguments[0])) is not None:
        return None
    return f"{arguments[0]} cannot be moved: it is not a mount point"


def move_locked(arguments: Arguments) -> str | None:
    """A mount that came from a more privileged mount namespace stays where it is."""
    if not is_move(arguments) or not locked(os.fspath(arguments[0])):
        return None
    return f"{arguments[0]} was inherited from a more privileged mount namespace and is locked in its place"


def move_under_shared(arguments: Arguments) -> str | None:
    """A mount on a shared mount cannot be moved away from it."""
    mount = mountinfo.mount_at(os.fspath(arguments[0])) if is_move(arguments) else None
    above = mountinfo.known(mount.parent) if mount else None
    if mount is None or above is None or not above.shared:
        return None
    return f"{mount.place} is mounted on {above.place}, which is shared"


def move_unbindable_to_shared(arguments: Arguments) -> str | None:
    """A tree with an unbindable mount cannot be copied to the target's peers."""
    if not is_move(arguments):
        return None
    mounts = mountinfo.table()
    mount, target = mountinfo.mount_at(os.fspath(arguments[0])), mounts.get(mountinfo.where(os.fspath(arguments[1])).id)
    if mount is None or target is None or not target.shared:
        return None
    tree = [one for one in mounts.values() if f"{one.place}/".startswith(mount.place.rstrip("/") + "/")]
    closed = [one.place for one in tree if "unbindable" in one.tags]
    return f"the target's mount {target.place} is shared, and {closed[0]} is unbindable" if closed else None


def no_type(arguments: Arguments) -> str | None:
    """A new mount without a file system type."""
    if not is_new(arguments) or arguments[2]:
        return None
    return "neither a file system type nor bind was given"


# --- the others -----------------------------------------------------------------------


def move_into_itself(arguments: Arguments) -> str | None:
    """ELOOP: the target lies below what is to be moved."""
    if not is_move(arguments):
        return None
    source, target = (mountinfo.where(os.fspath(path)).path for path in arguments[:2])
    return f"{target} lies in {source} itself" if f"{target}/".startswith(source.rstrip("/") + "/") else None


def link_to_itself(arguments: Arguments) -> str | None:
    """ELOOP: symbolic links in a circle."""
    for path in arguments[:2]:
        if isinstance(path, str | os.PathLike) and os.path.islink(path):
            try:
                os.stat(path)
            except OSError as error:
                if error.errno == 40:  # ELOOP
                    return f"the symbolic link {os.fspath(path)} leads back to itself"
    return None


def unknown_kind(arguments: Arguments) -> str | None:
    """ENODEV: no such file system in this kernel."""
    kind = next((str(one) for one in (arguments[2:3] if len(arguments) > 2 else arguments[:1]) if one), "")
    if any(line.split()[-1] == kind.partition(".")[0] for line in Path("/proc/filesystems").read_text().splitlines()):
        return None
    return f"this kernel has no file system {kind} (see /proc/filesystems)"


def no_target(arguments: Arguments) -> str | None:
    """ENOENT: the mount point is not there."""
    target = os.fspath(arguments[1])
    return None if os.path.lexists(target) else f"the mount point {target} does not exist"


def no_source(arguments: Arguments) -> str | None:
    """ENOENT: the source is not there."""
    source = arguments[0]
    if not source or not os.fspath(source).startswith("/") or os.path.lexists(source):
        return None
    return f"the source {os.fspath(source)} does not exist"


def file_and_folder(arguments: Arguments) -> str | None:
    """ENOTDIR: a file on a folder or the other way round."""
    if is_bind(arguments) and os.path.isdir(arguments[0]) != os.path.isdir(arguments[1]):
        return "one of source and target is a folder and the other is a file"
    return None


def target_is_a_file(arguments: Arguments) -> str | None:
    """ENOTDIR: a file system's root is a folder."""
    if not is_new(arguments) or os.path.isdir(arguments[1]):
        return None
    return f"a file system is mounted on a folder, and {arguments[1]} is none"


def no_block_device(arguments: Arguments) -> str | None:
    """ENOTBLK: a disk's file system wants a block device."""
    if not is_new(arguments) or stat.S_ISBLK(os.stat(arguments[0]).st_mode):
        return None
    return f"{arguments[2]} lies on a block device, and {os.fspath(arguments[0])} is none"


def mounted_there_already(arguments: Arguments) -> str | None:
    """EBUSY: the very same file system on the very same place."""
    mount = mountinfo.mount_at(os.fspath(arguments[1])) if is_new(arguments) else None
    if mount is None or mount.kind != arguments[2]:
        return None
    return f"this very {mount.kind} is mounted on {mount.place} already"


def written_to(arguments: Arguments) -> str | None:
    """EBUSY: no remount as read-only while somebody has a file open for writing."""
    if not arguments[3] & C.MS_REMOUNT or not arguments[3] & C.MS_RDONLY:
        return None
    found = users(mountinfo.where(os.fspath(arguments[1])).id, writing=True)
    return f"files on it are open for writing: {'; '.join(found[:5])}" if found else None


# --- umount2 --------------------------------------------------------------------------


def unmount_of_no_mount(arguments: Arguments) -> str | None:
    """EINVAL: nothing is mounted there."""
    path = os.fspath(arguments[0])
    return None if mountinfo.mount_at(path) is not None else f"{path} is not a mount point"


def unmount_locked(arguments: Arguments) -> str | None:
    """EINVAL: a mount that came from a more privileged mount namespace stays."""
    path = os.fspath(arguments[0])
    if mountinfo.mount_at(path) is None or not locked(path):
        return None
    return f"{path} was inherited from a more privileged mount namespace and is locked in its place"


def mounts_below(arguments: Arguments) -> str | None:
    """EBUSY: something is mounted on it."""
    mount = mountinfo.mount_at(os.fspath(arguments[0]))
    below = [one.place for one in mountinfo.table().values() if mount and one.parent == mount.id]
    return f"mounted on it: {', '.join(below[:5])}" if below else None


def in_use(arguments: Arguments) -> str | None:
    """EBUSY: processes stand in it, or have files of it open."""
    found = users(mountinfo.where(os.fspath(arguments[0])).id)
    return f"in use by {'; '.join(found[:5])}" if found else None


def no_unmount_target(arguments: Arguments) -> str | None:
    """ENOENT: the path is not there."""
    path = os.fspath(arguments[0])
    return None if os.path.lexists(path) else f"{path} does not exist"


def users(number: int, *, writing: bool = False) -> list[str]:
    """Who uses the mount of that number, and how, from /proc: "process 812 (sh): works in it"."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            ways = _ways(pid, number, writing)
            if ways:
                found.append(f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()}): {', '.join(ways)}")
        except OSError:
            continue  # ended, or not ours to look at
    return found


def _ways(pid: str, number: int, writing: bool) -> list[str]:
    ways = []
    if not writing:
        for name, words in (("cwd", "works in it"), ("root", "has its root in it"), ("exe", "runs a program of it")):
            try:
                if mountinfo.where(f"/proc/{pid}/{name}").id == number:
                    ways.append(words)
            except OSError:
                continue
    for fd in os.listdir(f"/proc/{pid}/fd"):
        info = Path(f"/proc/{pid}/fdinfo/{fd}")
        try:
            if mountinfo.mount_id(info) == number and (not writing or _writes(info)):
                ways.append(f"has {os.readlink(f'/proc/{pid}/fd/{fd}')} open")
        except (OSError, ValueError):
            continue
    if not writing:
        for name in os.listdir(f"/proc/{pid}/map_files"):
            try:
                if mountinfo.where(f"/proc/{pid}/map_files/{name}").id == number:
                    ways.append(f"has {os.readlink(f'/proc/{pid}/map_files/{name}')} in its memory")
                    break
            except OSError:
                continue
    return ways


def _writes(fdinfo: Path) -> bool:
    flags = next(line.split()[1] for line in fdinfo.read_text().splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
