"""Floor 3: who the container's process is: a USER text to numbers, by the image's own files.

Owns: reading etc/passwd and etc/group beneath a root, which the kernel resolves; and seeing a stack of layers as
one tree for it, in a child that is gone afterwards.  config.json has numbers only: this is the engine's work.

Read: the image specification on `User`; passwd(5), group(5); openat2(2) on RESOLVE_IN_ROOT.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from labkit.errors import LabError, NotFound
from labkit.kernel import constants as C
from labkit.kernel import mounts
from labkit.kernel.syscalls import call, openat2
from labkit.storage.overlay import Root

LONGEST = 1 << 20  # bytes of a list that are read


class User(NamedTuple):
    """Numbers, as the kernel wants them."""

    uid: int
    gid: int
    groups: list[int]

    def to_json(self) -> dict[str, Any]:
        """config.json's process.user."""
        return {"uid": self.uid, "gid": self.gid, "additionalGids": self.groups}


def look_up(text: str, root: int) -> User:
    """user, uid, user:group, uid:gid in the tree whose open folder is `root`; empty is root.

    Raises NotFound for a name that is not listed.
    """
    who, _, group = (text or "0").partition(":")
    row = next((row for row in _table(root, "etc/passwd", 6) if who in (row[0], row[2])), None)
    if row is None and not who.isdigit():
        raise NotFound(f"there is no user {who!r} in the image", why="its /etc/passwd does not list the name")
    uid = int(row[2]) if row else int(who)
    gid = int(row[3]) if row else 0
    groups = _table(root, "etc/group", 4)
    if group:
        found = next((line for line in groups if group in (line[0], line[2])), None)
        if found is None and not group.isdigit():
            raise NotFound(f"there is no group {group!r} in the image", why="its /etc/group does not list the name")
        return User(uid, int(found[2]) if found else int(group), [])
    more = [int(line[2]) for line in groups if row and row[0] in line[3].split(",")]
    return User(uid, gid, more)


def in_layers(text: str, root: Root, target: Path) -> User:
    """The same in a stack of layers, mounted on `target` for the moment, where only the child that looks sees it.

    Raises NotFound, and LabError for a stack that cannot be mounted.
    """
    inward, outward = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: dict[str, Any] = {}
        try:
            call("unshare", C.CLONE_NEWNS)
            mounts.propagate("/", "rprivate")
            root.mount(target)
            answer = look_up(text, os.open(target, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))._asdict()
        except NotFound as error:
            answer = {"missing": error.what, "why": error.why}
        except BaseException as error:
            answer = {"failed": str(error), "why": getattr(error, "why", "")}
        finally:
            os.write(outward, json.dumps(answer).encode())
            os._exit(0)
    os.close(outward)
    with os.fdopen(inward) as pipe:
        answer = json.loads(pipe.read() or "{}")
    os.waitpid(pid, 0)
    if "missing" in answer:
        raise NotFound(answer["missing"], why=answer["why"], next="--user with a number needs no list")
    if "uid" not in answer:
        raise LabError("the image's list of users could not be read", why=answer.get("failed", "the reader died"))
    return User(**answer)


def _table(root: int, file: str, columns: int) -> list[list[str]]:
    """The rows of a list of the image's; none where it has none, or something else in its place: numbers still work."""
    try:
        fd = openat2(root, file, os.O_RDONLY | os.O_NONBLOCK, resolve=C.RESOLVE_IN_ROOT)
    except OSError:
        return []
    with os.fdopen(fd, "rb") as opened:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        lines = opened.read(LONGEST).decode(errors="replace").splitlines()
    rows = [line.split(":") for line in lines]
    return [row for row in rows if len(row) >= columns and row[2].isdigit()]
