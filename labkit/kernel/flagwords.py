"""Floor 1: the words for the numbers in a system call, as strace(1) shows them.

Owns: which argument of which call is made of which flags or names one of which commands.
What has no word keeps its number.

Read: the man page of each call in the table.
"""

from __future__ import annotations

import os

from labkit.kernel import constants as C
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# (call, place of the argument): the constants' prefix, or several.  Flags are or'ed, a command is one of several.
FLAGS: dict[tuple[str, int], str | tuple[str, ...]] = {
    ("unshare", 0): "CLONE_",
    ("setns", 1): "CLONE_",
    ("mount", 3): "MS_",
    ("umount2", 1): "MNT_",
    ("fsopen", 1): "FSOPEN_",
    ("fsmount", 1): "FSMOUNT_",
    ("fsmount", 2): "MOUNT_ATTR_",
    ("move_mount", 4): "MOVE_MOUNT_",
    ("open_tree", 2): ("OPEN_TREE_", "AT_"),
    ("mount_setattr", 2): "AT_",
    ("close_range", 2): "CLOSE_RANGE_",
    ("seccomp", 1): "SECCOMP_FILTER_FLAG_",
    ("socket", 1): "SOCK_",  # the kit makes datagram sockets only by this call
    ("keyctl", 2): "KEY_",
}
COMMANDS = {("fsconfig", 1): "FSCONFIG_", ("prctl", 0): "PR_", ("seccomp", 0): "SECCOMP_SET_MODE_",
            ("prlimit64", 1): "RLIMIT_", ("socket", 0): "AF_INET", ("ioctl", 1): "SIOC",
            ("keyctl", 0): "KEYCTL_"}  # fmt: skip
FOLDERS = {("move_mount", 0), ("move_mount", 2), ("mount_setattr", 0), ("openat2", 0), ("open_tree", 0), ("mknodat", 0)}
AT_FDCWD = -100
# Arguments of prctl, not commands of it.
AMBIENT = {C.PR_CAP_AMBIENT_CLEAR_ALL: "PR_CAP_AMBIENT_CLEAR_ALL", C.PR_CAP_AMBIENT_RAISE: "PR_CAP_AMBIENT_RAISE"}
# The beginning of prctl's arguments: the place behind it holds a capability.
BEFORE_CAPABILITY = {(C.PR_CAPBSET_DROP,), (C.PR_CAPBSET_READ,), (C.PR_CAP_AMBIENT, C.PR_CAP_AMBIENT_RAISE)}
# Of open(2), from Python's os: their values differ between architectures.
OPENING = ("O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW",
           "O_CLOEXEC", "O_PATH")  # fmt: skip


def word(call: str, place: int, number: int, arguments: Sequence[object] = ()) -> str | None:
    """CLONE_NEWNS|CLONE_NEWUTS for a number in its place; None where it is just a number.

    arguments -- all of the call's: what a number of prctl means, those before it say
    """
    if (call, place) in FOLDERS and number == AT_FDCWD:
        return "AT_FDCWD"
    if call == "prctl" and place:
        return _of_prctl(number, tuple(arguments[:place]))
    if prefix := COMMANDS.get((call, place)):
        return _table(prefix).get(number)
    return flags(FLAGS[call, place], number) if (call, place) in FLAGS and number else None


def flags(prefix: str | tuple[str, ...], number: int) -> str:
    """The names of the bits, the lowest first; bits without a name as one number behind them.

    Where a name means several bits, those of the parts are left out.
    """
    found = {value: name for value, name in sorted(_table(prefix).items()) if value and number & value == value}
    names = [name for value, name in found.items() if not any(value & one == value != one for one in found)]
    known = 0
    for value in found:
        known |= value
    return "|".join([*names, *([hex(number & ~known)] if number & ~known else [])])


def opening(number: int) -> str:
    """The flags of open(2): how it is opened, and what else."""
    found = [("O_RDONLY", "O_WRONLY", "O_RDWR")[number & os.O_ACCMODE]] if number & os.O_ACCMODE != 3 else []
    rest = number & ~os.O_ACCMODE
    for name in OPENING:
        bits = getattr(C, name, None) or getattr(os, name)
        if rest & bits == bits:
            found.append(name)
            rest &= ~bits
    return "|".join([*found, *([hex(rest)] if rest else [])])


def _of_prctl(number: int, before: tuple[object, ...]) -> str | None:
    if before in BEFORE_CAPABILITY:
        from labkit.kernel import capabilities  # it makes calls itself, and so needs this file first

        return next((name for name, one in capabilities.NUMBERS.items() if one == number), None)
    return AMBIENT.get(number) if before == (C.PR_CAP_AMBIENT,) else None


def _table(prefix: str | tuple[str, ...]) -> dict[int, str]:
    return {value: name for name, value in vars(C).items() if name.startswith(prefix) and name not in AMBIENT.values()}
