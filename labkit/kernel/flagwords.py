"""Floor 1: the words for the numbers in a system call, as strace(1) shows them.

Owns: which argument of which call is made of which flags or names one of which commands.
What has no word keeps its number.

Read: the man page of each call in the table.
"""

from __future__ import annotations

from labkit.kernel import constants as C

# (call, place of the argument): the constants' prefix.  Flags are or'ed, a command is one of several.
FLAGS = {
    ("unshare", 0): "CLONE_",
    ("setns", 1): "CLONE_",
    ("mount", 3): "MS_",
    ("umount2", 1): "MNT_",
    ("fsopen", 1): "FSOPEN_",
    ("fsmount", 1): "FSMOUNT_",
    ("move_mount", 4): "MOVE_MOUNT_",
    ("open_tree", 2): "OPEN_TREE_",
    ("mount_setattr", 2): "AT_",
    ("close_range", 2): "CLOSE_RANGE_",
    ("seccomp", 1): "SECCOMP_FILTER_FLAG_",
}
COMMANDS = {("fsconfig", 1): "FSCONFIG_", ("prctl", 0): "PR_", ("seccomp", 0): "SECCOMP_SET_MODE_",
            ("prlimit64", 1): "RLIMIT_"}  # fmt: skip
FOLDERS = {("move_mount", 0), ("move_mount", 2), ("mount_setattr", 0), ("openat2", 0), ("open_tree", 0), ("mknodat", 0)}
AT_FDCWD = -100
# Arguments of prctl, not commands of it.
NO_COMMANDS = {"PR_CAP_AMBIENT_CLEAR_ALL"}


def word(call: str, place: int, number: int) -> str | None:
    """CLONE_NEWNS|CLONE_NEWUTS for a number in its place; None where it is just a number."""
    if (call, place) in FOLDERS and number == AT_FDCWD:
        return "AT_FDCWD"
    if prefix := COMMANDS.get((call, place)):
        return _table(prefix).get(number)
    return flags(FLAGS[call, place], number) if (call, place) in FLAGS and number else None


def flags(prefix: str, number: int) -> str:
    """The names of the bits, the lowest first; bits without a name as one number behind them."""
    names = [name for value, name in sorted(_table(prefix).items()) if value and number & value == value]
    known = 0
    for value, name in _table(prefix).items():
        known |= value if name in names else 0
    return "|".join([*names, *([hex(number & ~known)] if number & ~known else [])])


def _table(prefix: str) -> dict[int, str]:
    return {value: name for name, value in vars(C).items() if name.startswith(prefix) and name not in NO_COMMANDS}
