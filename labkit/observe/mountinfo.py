"""Reading floor: the mount table of a process.

Owns: the form of /proc/PID/mountinfo, its escapes, and the options in which overlayfs
tells its layers.

Read: proc_pid_mountinfo(5); Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from labkit.kernel.mounts import unescape


class Mount(NamedTuple):
    """One line of mountinfo."""

    number: int
    parent: int
    device: str  # major:minor
    root: str  # which folder of the file system is seen
    place: str  # where, for a process with this root
    options: tuple[str, ...]  # of this mount
    propagation: tuple[str, ...]  # shared:N, master:N, unbindable; none of them: private
    kind: str  # file system type
    source: str
    superblock: str  # options of the file system, as one string

    @property
    def read_only(self) -> bool:
        """Whether this mount refuses writes, whatever the file system says."""
        return "ro" in self.options


def read(pid: int | str = "self") -> list[Mount]:
    """The mount table that `pid` sees, parents before children.

    Raises FileNotFoundError when the process is gone, PermissionError when it is another's.
    """
    # Bytes: a mount point's name may hold any but NUL, and whatever Python takes for a line end.
    return parse(os.fsdecode(Path(f"/proc/{pid}/mountinfo").read_bytes()))


def parse(text: str) -> list[Mount]:
    """The lines of a mountinfo, as objects. Raises ValueError for a line of another form."""
    return [_line(line) for line in text.split("\n") if line]


def _line(line: str) -> Mount:
    left, _, right = line.partition(" - ")
    number, parent, device, root, place, options, *propagation = left.split(" ")
    kind, source, superblock = right.split(" ", 2)
    return Mount(
        int(number),
        int(parent),
        device,
        unescape(root),
        unescape(place),
        tuple(options.split(",")),
        tuple(word for word in propagation if word),
        unescape(kind),
        unescape(source),
        superblock,
    )


class Layers(NamedTuple):
    """The folders of an overlay: `lower` as images list them, the bottom first."""

    lower: tuple[str, ...]
    upper: str | None
    work: str | None


def layers(mount: Mount) -> Layers:
    """The folders that an overlay mount was made of. Raises ValueError for another kind of mount."""
    if mount.kind != "overlay":
        raise ValueError(f"the mount on {mount.place} is {mount.kind}, not overlay")
    lower: list[str] = []
    single = {"upperdir": "", "workdir": ""}
    # A comma within a value is an octal escape too (seq_show_option in include/linux/seq_file.h).
    for option in mount.superblock.split(","):
        key, _, value = option.partition("=")
        if key == "lowerdir+":  # one layer an option: Linux 6.8 on shows them as they were given
            lower.append(unescape(value))
        elif key == "lowerdir":  # one string, in which mount(2) wanted colons escaped
            lower += [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", unescape(value))]
        elif key in single:
            single[key] = unescape(value)
    return Layers(tuple(reversed(lower)), single["upperdir"] or None, single["workdir"] or None)
