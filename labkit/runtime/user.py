"""Floor 3: who the container's process is: a USER text to numbers, by the image's own files.

Owns: reading /etc/passwd and /etc/group of the present root (after the pivot they are the
container's), and becoming that user.

Read: the image specification on `User`; passwd(5), group(5), credentials(7).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from labkit.errors import NotFound


class User(NamedTuple):
    """Numbers, as the kernel wants them, and the home folder."""

    uid: int
    gid: int
    groups: list[int]
    home: str


def look_up(text: str, etc: Path = Path("/etc")) -> User:
    """user, uid, user:group, uid:gid; empty is root. Raises NotFound for a name that is not listed."""
    who, _, group = (text or "0").partition(":")
    people = _table(etc / "passwd", 6)
    row = next((row for row in people if who in (row[0], row[2])), None)
    if row is None and not who.isdigit():
        raise NotFound(f"there is no user {who!r} in the image", why="its /etc/passwd does not list the name")
    uid = int(row[2]) if row else int(who)
    gid = int(row[3]) if row else 0
    groups = _table(etc / "group", 4)
    if group:
        found = next((line for line in groups if group in (line[0], line[2])), None)
        if found is None and not group.isdigit():
            raise NotFound(f"there is no group {group!r} in the image", why="its /etc/group does not list the name")
        return User(uid, int(found[2]) if found else int(group), [], row[5] if row else "/")
    more = [int(line[2]) for line in groups if row and row[0] in line[3].split(",")]
    return User(uid, gid, more, row[5] if row else "/")


def _table(file: Path, columns: int) -> list[list[str]]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:  # an image without the file: numbers still work
        return []
    rows = [line.split(":") for line in lines]
    return [row for row in rows if len(row) >= columns and row[2].isdigit()]


def become(user: User) -> None:
    """Groups first, then the group, then the user: in the other order the right is gone."""
    os.setgroups([user.gid, *user.groups])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
