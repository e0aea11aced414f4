"""Floor 1: why uid_map, gid_map or setgroups of a user namespace could not be written.

Owns: one finder for each condition of map_write and its relatives in the kernel's
user_namespace.c.  The arguments are (path, text).

Read: user_namespaces(7), proc_pid_uid_map(5), proc_pid_setgroups(5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from labkit.kernel import causes_caps as caps
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call

Arguments = tuple[Any, ...]

MOST_LINES = 340  # UID_GID_MAP_MAX_EXTENTS


class Range(NamedTuple):
    """One line: `size` numbers from `inside` are those from `outside`."""

    inside: int
    outside: int
    size: int


def ranges(text: str) -> list[Range]:
    """The lines of a map that have their form."""
    found = [re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\d+)\s*", line) for line in text.splitlines()]
    return [Range(*map(int, match.groups())) for match in found if match]


def _process(arguments: Arguments) -> str:
    return Path(arguments[0]).parent.name


def _setgroups(arguments: Arguments) -> str:
    return Path(arguments[0]).with_name("setgroups").read_text().strip()


def _outside(arguments: Arguments) -> bool:
    """Whether the writer is in another user namespace than the one that is mapped."""
    return os.stat("/proc/self/ns/user").st_ino != os.stat(f"/proc/{_process(arguments)}/ns/user").st_ino


def _privileged(arguments: Arguments) -> bool:
    """Whether the writer may map any number: it writes from the parent namespace and has the capability there."""
    capability = caps.CAP_SETUID if Path(arguments[0]).name == "uid_map" else caps.CAP_SETGID
    return _outside(arguments) and caps.has(capability)


# --- EPERM ----------------------------------------------------------------------------


def written_already(arguments: Arguments) -> str | None:
    """A map is written once."""
    present = Path(arguments[0]).read_text().split()
    return (
        f"{arguments[0]} is written already ({' '.join(present[:3])}), and a map is written once" if present else None
    )


def not_from_the_parent(arguments: Arguments) -> str | None:
    """The writer is in the namespace itself or in its parent."""
    if not _outside(arguments):
        return None
    above = caps.parent(f"/proc/{_process(arguments)}/ns/user")
    if above == os.stat("/proc/self/ns/user").st_ino:
        return None
    return (
        f"process {_process(arguments)}'s user namespace is not a child of the writer's: it lies deeper, or elsewhere"
    )


def groups_not_denied(arguments: Arguments) -> str | None:
    """Without CAP_SETGID outside, a group must not be got rid of by setgroups."""
    if Path(arguments[0]).name != "gid_map" or _privileged(arguments) or _setgroups(arguments) == "deny":
        return None
    return "the writer lacks CAP_SETGID in the parent user namespace, and setgroups is still allowed in this one"


def several_lines(arguments: Arguments) -> str | None:
    """Without the capability outside, one line of one number."""
    lines = ranges(arguments[1])
    if _privileged(arguments) or (len(lines) == 1 and lines[0].size == 1):
        return None
    capability = "CAP_SETUID" if Path(arguments[0]).name == "uid_map" else "CAP_SETGID"
    return f"without {capability} in the parent user namespace one may map one number, in one line"


def not_ones_own(arguments: Arguments) -> str | None:
    """Without the capability outside, it is one's own number that is mapped."""
    lines = ranges(arguments[1])
    if _privileged(arguments) or len(lines) != 1:
        return None
    kind = Path(arguments[0]).name[:3]
    return f"{lines[0].outside} outside is not the writer's own {kind}, and it lacks CAP_SET{kind.upper()} there"


def not_in_parent(arguments: Arguments) -> str | None:
    """What is mapped must exist in the parent namespace."""
    if not _outside(arguments):
        return None
    present = ranges(Path("/proc/self", Path(arguments[0]).name).read_text())
    for one in ranges(arguments[1]):
        inside = [have for have in present if have.inside <= one.outside
                  and one.outside + one.size <= have.inside + have.size]  # fmt: skip
        if not inside:
            return f"the parent user namespace does not have all of {one.outside} to {one.outside + one.size - 1}"
    return None


def deny_too_late(arguments: Arguments) -> str | None:
    """setgroups is denied before gid_map is written."""
    if arguments[1].strip() != "deny" or not Path(arguments[0]).with_name("gid_map").read_text().strip():
        return None
    return "gid_map is written already, and after that setgroups is not taken away"


def allow_after_deny(arguments: Arguments) -> str | None:
    """What was denied stays denied."""
    if arguments[1].strip() != "allow" or _setgroups(arguments) != "deny":
        return None
    return "setgroups was denied, and that is for good in this user namespace and all below it"


def not_dumpable(arguments: Arguments) -> str | None:
    """EACCES: after a change of user, a process's files in /proc are root's."""
    if _process(arguments) not in ("self", str(os.getpid())) or call("prctl", C.PR_GET_DUMPABLE, 0, 0, 0, 0) == 1:
        return None
    return f"this process has changed its user and since then is not dumpable: {arguments[0]} is root's"


# --- EINVAL ---------------------------------------------------------------------------


def bad_form(arguments: Arguments) -> str | None:
    """Three numbers a line."""
    lines = arguments[1].splitlines()
    wrong = [line for line in lines if not ranges(line)]
    return f"not three numbers (inside, outside, count): {wrong[0]!r}" if wrong else None


def nothing_mapped(arguments: Arguments) -> str | None:
    """A count of 0."""
    empty = [one for one in ranges(arguments[1]) if one.size == 0]
    return f"the count in {' '.join(map(str, empty[0]))!r} is 0" if empty else None


def too_large(arguments: Arguments) -> str | None:
    """32 bits, of which the last number stands for nobody."""
    for one in ranges(arguments[1]):
        if max(one.inside, one.outside) + one.size > 2**32 - 1:
            return f"{' '.join(map(str, one))!r} goes beyond 4294967294, the last user number"
    return None


def overlap(arguments: Arguments) -> str | None:
    """A number in two lines."""
    for side in ("inside", "outside"):
        first: Range | None = None
        for one in sorted(ranges(arguments[1]), key=lambda one: int(getattr(one, side))):
            if first is not None and getattr(one, side) < getattr(first, side) + first.size:
                return f"{' '.join(map(str, first))!r} and {' '.join(map(str, one))!r} overlap {side}"
            first = one
    return None


def too_many_lines(arguments: Arguments) -> str | None:
    """340 lines."""
    count = len(arguments[1].splitlines())
    return f"{count} lines; a map has at most {MOST_LINES}" if count > MOST_LINES else None


def too_long(arguments: Arguments) -> str | None:
    """One write of less than a page."""
    page = os.sysconf("SC_PAGE_SIZE")
    size = len(arguments[1].encode())
    return f"the text is {size} bytes; a map is written at once, in less than {page}" if size >= page else None


def neither_word(arguments: Arguments) -> str | None:
    """setgroups knows two words."""
    return None if arguments[1].strip() in ("allow", "deny") else f"{arguments[1]!r} is neither 'deny' nor 'allow'"
