"""Floor 1: mounts: attach, bind, make private, pivot, detach.

Owns: mount(2) and its relatives in the calling process's mount namespace, the names of
mount options, and the causes behind their errnos that can be read off this machine.

Read: mount(2), mount_namespaces(7), pivot_root(2), fsopen(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from labkit.errors import explain
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call

FLAGS = {
    "ro": C.MS_RDONLY,
    "nosuid": C.MS_NOSUID,
    "nodev": C.MS_NODEV,
    "noexec": C.MS_NOEXEC,
    "noatime": C.MS_NOATIME,
    "relatime": C.MS_RELATIME,
    "strictatime": C.MS_STRICTATIME,
    "bind": C.MS_BIND,
    "rbind": C.MS_BIND | C.MS_REC,
}

PROPAGATION = {
    "private": C.MS_PRIVATE,
    "rprivate": C.MS_PRIVATE | C.MS_REC,
    "slave": C.MS_SLAVE,
    "rslave": C.MS_SLAVE | C.MS_REC,
    "shared": C.MS_SHARED,
    "rshared": C.MS_SHARED | C.MS_REC,
    "unbindable": C.MS_UNBINDABLE,
}


def mount(source: str | None, target: Path | str, kind: str | None, options: list[str] | None = None) -> None:
    """Mount `source` of file system type `kind` on `target`.

    `options` are the words of mount(8): flags by the table above, the rest goes to the
    file system.  mount(2) ignores every other flag beside bind: `reflag` sets those after.

    Raises LabError with the kernel's errno and the likely cause.
    """
    options = options or []
    bits = flag_bits(options)
    data = ",".join(option for option in options if option not in FLAGS) or None
    try:
        if bits & C.MS_BIND:
            call("mount", source, os.fspath(target), None, bits & (C.MS_BIND | C.MS_REC), None)
        else:
            call("mount", source, os.fspath(target), kind, bits, data)
    except OSError as error:
        explain(error, f"cannot mount {source or kind} on {target}", why=_cause(error, source, target, kind))


def flag_bits(options: list[str]) -> int:
    """The MS_* bits among `options`."""
    bits = 0
    for option in options:
        bits |= FLAGS.get(option, 0)
    return bits


def reflag(target: Path | str, options: list[str]) -> None:
    """Change the flags of the mount on `target` alone (ro, nosuid, nodev, noexec, ...).

    Raises LabError.
    """
    bits = flag_bits(options) & ~(C.MS_BIND | C.MS_REC)
    try:
        call("mount", None, os.fspath(target), None, bits | C.MS_BIND | C.MS_REMOUNT, None)
    except OSError as error:
        explain(error, f"cannot make {target} {','.join(options)}")


def _cause(error: OSError, source: str | None, target: Path | str, kind: str | None) -> str:
    if error.errno == errno.ENOENT and not os.path.lexists(target):
        return f"the mount point {target} does not exist"
    if error.errno == errno.ENOENT and source and source.startswith("/") and not os.path.lexists(source):
        return f"the source {source} does not exist"
    if error.errno == errno.ENODEV:
        return f"this kernel has no file system {kind} (see /proc/filesystems)"
    if error.errno == errno.EPERM:
        return "mounting needs CAP_SYS_ADMIN in the user namespace that owns this mount namespace"
    if error.errno == errno.ENOTDIR:
        return "one of source and target is a folder and the other is a file"
    return ""


def propagate(target: Path | str, how: str) -> None:
    """Set the propagation of `target` (mount_namespaces(7)); a name of PROPAGATION."""
    try:
        call("mount", None, os.fspath(target), None, PROPAGATION[how], None)
    except OSError as error:
        why = "it is not a mount point" if error.errno == errno.EINVAL else ""
        explain(error, f"cannot make {target} {how}", why=why)


def read_only(target: Path | str) -> None:
    """Bind `target` to itself and make that mount read-only, and nothing on it executable."""
    mount(os.fspath(target), target, None, ["rbind"])
    reflag(target, ["ro", "nosuid", "nodev", "noexec"])


def unmount(target: Path | str, *, detach: bool = False) -> None:
    """umount2(2); `detach` takes it out of sight at once and ends it when nobody uses it."""
    call("umount2", os.fspath(target), C.MNT_DETACH if detach else 0)


def pivot(new_root: Path | str) -> None:
    """Make `new_root` this mount namespace's root and let the old one go.

    pivot_root(".", ".") stacks the old root on the new one, so that no folder for it is
    needed inside; the detach then takes the old root away (pivot_root(2), NOTES).
    """
    os.chdir(new_root)
    try:
        call("pivot_root", ".", ".")
    except OSError as error:
        why = ""
        if error.errno == errno.EINVAL:
            why = pivot_obstacle(Path(new_root))
        explain(error, f"cannot make {new_root} the root", why=why)
    call("umount2", ".", C.MNT_DETACH)
    os.chdir("/")


def pivot_obstacle(new_root: Path) -> str:
    """Which of pivot_root's conditions fails here; empty when none that is known does."""
    lines = {fields[4]: fields for fields in _mountinfo()}
    if os.fspath(new_root) not in lines:
        return f"{new_root} is not a mount point: bind it to itself first"
    if any(field.startswith("shared:") for field in lines[os.fspath(new_root)][6:]):
        return f"the mount on {new_root} is shared: make it private first"
    if any(field.startswith("shared:") for field in lines.get("/", [])[6:]):
        return "the present root's mount is shared: make it private first"
    return ""


def _mountinfo() -> Iterator[list[str]]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.partition(" - ")[0].split()
        fields[4] = fields[4].encode().decode("unicode_escape")  # \040 is a space
        yield fields


def is_mounted(path: Path | str) -> bool:
    """Whether something is mounted exactly on `path`, seen from this process."""
    return any(fields[4] == os.fspath(path) for fields in _mountinfo())


def find(kind: str) -> Path | None:
    """Where a file system of type `kind` can be reached; None when nowhere.

    A mount that another one covers is still listed: what is seen there must be of its device.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] != kind:
            continue
        _, _, device, _, place, *_ = left.split()
        path = Path(place.encode().decode("unicode_escape"))
        try:
            seen = path.stat().st_dev
        except OSError:
            continue
        if device == f"{os.major(seen)}:{os.minor(seen)}":
            return path
    return None
