"""Floor 1: mounts: attach, bind, make private, pivot, detach.

Owns: mount(2) and its relatives in the calling process's mount namespace, and the names of
mount options.  Why one failed is in labkit.kernel.causes.

Read: mount(2), mount_namespaces(7), pivot_root(2), fsopen(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os

from labkit import leanctypes as ctypes
from labkit.kernel import constants as C
from labkit.kernel import flagwords, mountinfo
from labkit.kernel.attempts import attempt, noted
from labkit.kernel.causes_words import context_log
from labkit.kernel.mountinfo import lines as lines  # known by this module's name too
from labkit.kernel.mountinfo import unescape as unescape
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, StrPath

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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
    "runbindable": C.MS_UNBINDABLE | C.MS_REC,
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
    what = f"cannot mount {source or kind} on {target}"
    if bits & C.MS_BIND:
        attempt(what, "mount", source, os.fspath(target), None, bits & (C.MS_BIND | C.MS_REC), None)
    else:
        attempt(what, "mount", source, os.fspath(target), kind, bits, data)


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
    what = f"cannot make {target} {','.join(options)}"
    attempt(what, "mount", None, os.fspath(target), None, bits | C.MS_BIND | C.MS_REMOUNT, None)


def propagate(target: Path | str, how: str) -> None:
    """Set the propagation of `target` (mount_namespaces(7)); a name of PROPAGATION."""
    attempt(f"cannot make {target} {how}", "mount", None, os.fspath(target), None, PROPAGATION[how], None)


class Attributes(ctypes.Structure):
    """struct mount_attr, mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]

    def __str__(self) -> str:
        words = [f"{name}={flagwords.flags('MOUNT_ATTR_', value)}"
                 for name, value in (("attr_set", self.attr_set), ("attr_clr", self.attr_clr)) if value]  # fmt: skip
        words += [f"propagation={flagwords.flags('MS_', self.propagation)}"] if self.propagation else []
        words += [f"userns_fd={self.userns_fd}"] if self.attr_set & C.MOUNT_ATTR_IDMAP else []
        return f"{{{', '.join(words)}}}"


def unmount(target: Path | str, *, detach: bool = False) -> None:
    """umount2(2); `detach` takes it out of sight at once and ends it when nobody uses it.

    Raises OSError; its note names who uses the mount, or what else is in the way.
    """
    noted("umount2", os.fspath(target), C.MNT_DETACH if detach else 0)


def pivot(new_root: Path | str) -> None:
    """Make `new_root` this mount namespace's root and let the old one go.

    pivot_root(".", ".") stacks the old root on the new one, so that no folder for it is
    needed inside; the detach then takes the old root away (pivot_root(2), NOTES).
    """
    os.chdir(new_root)
    attempt(f"cannot make {new_root} the root", "pivot_root", ".", ".")
    call("umount2", ".", C.MNT_DETACH)
    os.chdir("/")


def is_mounted(path: Path | str) -> bool:
    """Whether something is mounted exactly on `path`, seen from this process."""
    return any(mount.place == os.fspath(path) for mount in mountinfo.table().values())


def find(kind: str) -> Path | None:
    """Where a file system of type `kind` can be reached; None when nowhere."""
    from pathlib import Path

    place = place_of(kind)
    return None if place is None else Path(place)


def place_of(kind: str) -> str | None:
    """The same, as a text.

    A mount that another one covers is still listed: what is seen there must be of its device.
    """
    for mount in mountinfo.table().values():
        if mount.kind != kind:
            continue
        try:
            seen = os.stat(mount.place).st_dev
        except OSError:
            continue
        if mount.device == f"{os.major(seen)}:{os.minor(seen)}":
            return mount.place
    return None


# --- by descriptors: nothing between the look and the deed can be swapped --------------------


def tree(fd: int, *, recursive: bool = False) -> int:
    """A copy of the mount that `fd` stands on, attached nowhere yet: a bind mount by descriptor (open_tree(2)).

    Raises OSError.
    """
    flags = C.OPEN_TREE_CLONE | os.O_CLOEXEC | C.AT_EMPTY_PATH | (C.AT_RECURSIVE if recursive else 0)
    return call("open_tree", fd, "", flags)


def attach(detached: int, target: int) -> None:
    """Attach a detached tree to the file or folder that the descriptor `target` stands on. Raises OSError."""
    flags = C.MOVE_MOUNT_F_EMPTY_PATH | C.MOVE_MOUNT_T_EMPTY_PATH
    call("move_mount", detached, "", target, "", flags)


def set_attributes(fd: int, *, on: int = 0, off: int = 0, recursive: bool = False, userns: int | None = None,
                   propagation: int = 0) -> None:  # fmt: skip
    """Turn MOUNT_ATTR_... bits on and off for the mount that `fd` stands on (mount_setattr(2), Linux 5.12).

    propagation -- MS_PRIVATE, MS_SLAVE, ..., 0 leaves it; a detached mount's too, which mount(2) does not reach
    userns -- the namespace whose mapping it shows (MOUNT_ATTR_IDMAP; detached mounts only).  Raises OSError.
    """
    given = Attributes(attr_set=on, attr_clr=off, propagation=propagation, userns_fd=userns or 0)
    flags = C.AT_EMPTY_PATH | (C.AT_RECURSIVE if recursive else 0)
    call("mount_setattr", fd, "", flags, given, ctypes.sizeof(given))


def new(kind: str, flags: tuple[str, ...] = (), attributes: int = 0, source: str = "",
        settings: Iterable[tuple[str, StrPath]] = ()) -> int:  # fmt: skip
    """A new mount of file system type `kind`, attached nowhere yet (fsopen(2), fsmount(2)).

    settings -- names and values, in the order in which the kernel is to hear of them.
    Raises OSError; what the kernel wrote into the context's log is in its text and, alone, its `kernel_words`.
    """
    context = call("fsopen", kind, C.FSOPEN_CLOEXEC)
    try:
        if source:
            call("fsconfig", context, C.FSCONFIG_SET_STRING, "source", source, 0)
        for name, value in settings:
            call("fsconfig", context, C.FSCONFIG_SET_STRING, name, value, 0)
        for flag in flags:
            call("fsconfig", context, C.FSCONFIG_SET_FLAG, flag, None, 0)
        call("fsconfig", context, C.FSCONFIG_CMD_CREATE, None, None, 0)
        return call("fsmount", context, C.FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        # The log ends with the context, so it goes along with the error.
        if words := context_log(context):
            error.kernel_words = words  # type: ignore[attr-defined]
            error.strerror = f"{error.strerror}; the kernel says: {words}"
        raise
    finally:
        os.close(context)


def magic(fd: int) -> int:
    """Which file system a descriptor stands on, by its number (statfs(2), f_type). Raises OSError."""
    room = ctypes.create_string_buffer(256)
    call("fstatfs", fd, room)
    return int.from_bytes(room.raw[:8], "little")
