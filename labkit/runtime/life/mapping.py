"""Floor 3: whose numbers a user namespace has: uid_map and gid_map.

Owns: writing them, as root directly; as an ordinary user the one own number directly, and more through
newuidmap and newgidmap, which are set-user-ID and know /etc/subuid.

Read: user_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import os

from labkit.errors import LabError, Refused
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Mapping = Sequence[dict[str, int]]

HELPERS = {"uid_map": "newuidmap", "gid_map": "newgidmap"}


def write(pid: int, users: Mapping, groups: Mapping) -> None:
    """Give the user namespace of a process its mappings. Raises LabError."""
    for file, mapping in (("uid_map", users), ("gid_map", groups)):
        own = os.geteuid() if file == "uid_map" else os.getegid()
        alone = len(mapping) == 1 and mapping[0]["size"] == 1 and mapping[0]["hostID"] == own
        if os.geteuid() == 0 or alone:
            if file == "gid_map" and os.geteuid():
                # Since Linux 3.19 who maps a group without privileges gives setgroups up first.
                _write(pid, "setgroups", "deny")
            _write(pid, file, "".join(_line(one) + "\n" for one in mapping))
        else:
            _ask(HELPERS[file], pid, mapping)


def _line(one: dict[str, int]) -> str:
    return f"{one['containerID']} {one['hostID']} {one['size']}"


def _write(pid: int, file: str, text: str) -> None:
    try:
        with open(f"/proc/{pid}/{file}", "w") as opened:
            opened.write(text)
    except OSError as error:
        raise Refused(f"cannot write {file} of the container's user namespace", status=1,
                      why=f"{error.strerror} (errno {error.errno}): {' / '.join(text.split(chr(10))).strip(' /')}",
                      next="an ordinary user maps the own number, or what /etc/subuid gives") from error  # fmt: skip


def _ask(helper: str, pid: int, mapping: Mapping) -> None:
    import subprocess

    words = [word for one in mapping for word in _line(one).split()]
    try:
        done = subprocess.run([helper, str(pid), *words], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LabError(f"there is no {helper} here", why="an ordinary user needs it for more than one number",
                       next="apt-get install uidmap", status=1) from error  # fmt: skip
    if done.returncode:
        raise Refused(f"{helper} refused", why=done.stderr.strip(), next="cat /etc/subuid /etc/subgid", status=1)
