"""Floor 1: /proc/PID/mountinfo as a table, and which mount a path is on.

Owns: the parsing of mountinfo, its escapes, and the way from a path to its mount's number.
A process's table lists what can be reached from its root; `known` asks its neighbours about the rest.

Read: proc_pid_mountinfo(5), proc_pid_fdinfo(5), mount_namespaces(7).
"""

from __future__ import annotations

import os

from labkit.kernel import constants as C
from labkit.lean import TYPE_CHECKING, Record, contents

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mount(Record):
    """One line of mountinfo."""

    id: int
    parent: int
    device: str  # major:minor
    root: str  # which folder of the file system is seen
    place: str  # where, from the reader's root
    options: frozenset[str]  # of this mount: ro, nosuid, ...
    tags: tuple[str, ...]  # shared:N, master:N, unbindable
    kind: str
    source: str
    super: tuple[str, ...]  # the options of the file system

    @property
    def shared(self) -> bool:
        """Whether mounting here is passed on to peers."""
        return any(tag.startswith("shared:") for tag in self.tags)


class Place(Record):
    """Where a path leads: its full name and the number of the mount it is on."""

    path: str
    id: int


def unescape(text: str) -> str:
    """A path as mountinfo writes it (\\040 is a space), as it is; any byte but those four stands for itself."""
    if "\\" not in text:  # nearly always, and a table may have thousands
        return text
    import re

    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def lines(pid: int | str = "self") -> list[str]:
    """The lines of a process's mountinfo; only a line feed ends one, whatever else a path holds."""
    return os.fsdecode(contents(f"/proc/{pid}/mountinfo")).removesuffix("\n").split("\n")


def table(pid: int | str = "self") -> dict[int, Mount]:
    """The mounts that a process can reach, by number."""
    return {mount.id: mount for mount in map(_parse, filter(None, lines(pid)))}


def _parse(line: str) -> Mount:
    left, _, right = line.partition(" - ")
    number, parent, device, root, place, options, *tags = left.split(" ")
    kind, source, *rest = right.split(" ")
    return Mount(
        int(number),
        int(parent),
        device,
        unescape(root),
        unescape(place),
        frozenset(options.split(",")),
        tuple(tags),
        kind,
        unescape(source),
        tuple(" ".join(rest).split(",")),
    )


def where(path: str) -> Place:
    """The place that `path` leads to. Raises OSError when it leads nowhere."""
    fd = os.open(path, C.O_PATH | os.O_CLOEXEC)
    try:
        return Place(os.readlink(f"/proc/self/fd/{fd}"), mount_id(f"/proc/self/fdinfo/{fd}"))
    finally:
        os.close(fd)


def mount_id(fdinfo: str | os.PathLike[str]) -> int:
    """The number of the mount that an open file is on. Raises OSError, ValueError."""
    with open(fdinfo) as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise ValueError(f"{fdinfo} names no mount")


def mount_at(path: str) -> Mount | None:
    """The mount whose root `path` is; None when it is no mount point of ours."""
    place = where(path)
    found = table().get(place.id)
    return found if found is not None and found.place == place.path else None


def neighbours(same: bool) -> Iterator[tuple[int, dict[int, Mount]]]:
    """Processes inside (same) or outside this mount namespace, one for each root, with their tables."""
    own = os.readlink("/proc/self/ns/mnt")
    seen = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace, root = os.readlink(f"/proc/{name}/ns/mnt"), os.stat(f"/proc/{name}/root")
            key = (namespace, root.st_dev, root.st_ino)
            if (namespace == own) is same and key not in seen:
                seen.add(key)
                yield int(name), table(name)
        except OSError:
            continue  # ended, or not ours to look at


def known(number: int) -> Mount | None:
    """The mount of that number in this mount namespace, from whichever process can reach it."""
    mine = table().get(number)
    if mine is not None:
        return mine
    return next((mounts[number] for _, mounts in neighbours(same=True) if number in mounts), None)
