"""Floor 2: whose the copied files become: --chown and USER to numbers, by the image's own files.

Owns: reading etc/passwd and etc/group beneath a root; a number needs neither, and without a group it is
its own group, as with Docker.

Read: Docker's "Dockerfile reference", COPY --chown; passwd(5), group(5).
"""

from __future__ import annotations

import os
import stat

from labkit.errors import NotFound
from labkit.kernel import constants as C
from labkit.kernel.syscalls import openat2


def numbers(text: str, root: int) -> tuple[int, int]:
    """(uid, gid) of USER[:GROUP] in the tree whose open folder is `root`. Raises NotFound for an unknown name."""
    who, colon, group = text.partition(":")
    if who.isdigit():
        uid = gid = int(who)
    else:
        row = _row(root, "etc/passwd", who)
        if row is None:
            raise NotFound(f"there is no user {who!r} in the image", why="its /etc/passwd does not list the name",
                           next="a number needs no list")  # fmt: skip
        uid, gid = int(row[2]), int(row[3])
    if colon:
        if group.isdigit():
            return uid, int(group)
        row = _row(root, "etc/group", group)
        if row is None:
            raise NotFound(f"there is no group {group!r} in the image", why="its /etc/group does not list the name",
                           next="a number needs no list")  # fmt: skip
        gid = int(row[2])
    return uid, gid


def _row(root: int, file: str, name: str) -> list[str] | None:
    try:
        # The image says what stands there: to open a pipe would wait for whoever writes to it.
        fd = openat2(root, file, os.O_RDONLY | os.O_NONBLOCK, resolve=C.RESOLVE_IN_ROOT)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None  # no list, as for labkit run --user
    with os.fdopen(fd, errors="replace") as lines:
        for line in lines:
            row = line.rstrip("\n").split(":")
            if row[0] == name and len(row) >= 3 and all(each.isdigit() for each in row[2:4] if each != ""):
                return row
    return None
