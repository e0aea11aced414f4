"""Floor 3: the words of config.json's mount options.

Owns: the table of all that the specification lists, and what a list of them comes to: flags of
mount(2), attributes of mount_setattr(2) for the mount or for all below it, propagation, and the
rest, which belongs to the file system.

Read: the OCI runtime specification, config.md, "Linux mount options"; mount(8), mount_setattr(2).
"""

from __future__ import annotations

from labkit.kernel import constants as C
from labkit.kernel.mounts import PROPAGATION
from labkit.lean import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

# word: (bit of mount(2), attribute of mount_setattr(2) or 0, whether the word turns it on)
FLAGS: dict[str, tuple[int, int, bool]] = {
    "ro": (C.MS_RDONLY, C.MOUNT_ATTR_RDONLY, True),
    "rw": (C.MS_RDONLY, C.MOUNT_ATTR_RDONLY, False),
    "nosuid": (C.MS_NOSUID, C.MOUNT_ATTR_NOSUID, True),
    "suid": (C.MS_NOSUID, C.MOUNT_ATTR_NOSUID, False),
    "nodev": (C.MS_NODEV, C.MOUNT_ATTR_NODEV, True),
    "dev": (C.MS_NODEV, C.MOUNT_ATTR_NODEV, False),
    "noexec": (C.MS_NOEXEC, C.MOUNT_ATTR_NOEXEC, True),
    "exec": (C.MS_NOEXEC, C.MOUNT_ATTR_NOEXEC, False),
    "noatime": (C.MS_NOATIME, C.MOUNT_ATTR_NOATIME, True),
    "atime": (C.MS_NOATIME, C.MOUNT_ATTR_NOATIME, False),
    "strictatime": (C.MS_STRICTATIME, C.MOUNT_ATTR_STRICTATIME, True),
    "nostrictatime": (C.MS_STRICTATIME, C.MOUNT_ATTR_STRICTATIME, False),
    "relatime": (C.MS_RELATIME, 0, True),
    "norelatime": (C.MS_RELATIME, 0, False),
    "nodiratime": (C.MS_NODIRATIME, C.MOUNT_ATTR_NODIRATIME, True),
    "diratime": (C.MS_NODIRATIME, C.MOUNT_ATTR_NODIRATIME, False),
    "nosymfollow": (C.MS_NOSYMFOLLOW, C.MOUNT_ATTR_NOSYMFOLLOW, True),
    "symfollow": (C.MS_NOSYMFOLLOW, C.MOUNT_ATTR_NOSYMFOLLOW, False),
    "sync": (C.MS_SYNCHRONOUS, 0, True),
    "async": (C.MS_SYNCHRONOUS, 0, False),
    "dirsync": (C.MS_DIRSYNC, 0, True),
    "lazytime": (C.MS_LAZYTIME, 0, True),
    "nolazytime": (C.MS_LAZYTIME, 0, False),
    "iversion": (C.MS_I_VERSION, 0, True),
    "noiversion": (C.MS_I_VERSION, 0, False),
    "mand": (C.MS_MANDLOCK, 0, True),
    "nomand": (C.MS_MANDLOCK, 0, False),
    "silent": (C.MS_SILENT, 0, True),
    "loud": (C.MS_SILENT, 0, False),
    "acl": (C.MS_POSIXACL, 0, True),
    "noacl": (C.MS_POSIXACL, 0, False),
    "bind": (C.MS_BIND, 0, True),
    "rbind": (C.MS_BIND | C.MS_REC, 0, True),
    "remount": (C.MS_REMOUNT, 0, True),
    "defaults": (0, 0, True),
}
ATIME = {"noatime", "atime", "strictatime", "nostrictatime", "relatime", "norelatime"}
# The same attributes, for the mount and all below it.
RECURSIVE = {
    f"r{word}": (FLAGS[word][1], FLAGS[word][2])
    for word in ("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "strictatime",
                 "nostrictatime", "relatime", "norelatime", "nodiratime", "diratime", "nosymfollow", "symfollow")
}  # fmt: skip
SPECIAL = ("idmap", "ridmap", "tmpcopyup")
KNOWN = (*FLAGS, *RECURSIVE, *PROPAGATION, *SPECIAL)


class Parsed(Record):
    """What a list of options comes to."""

    flags: int = 0  # of mount(2)
    on: int = 0  # MOUNT_ATTR_... of this mount
    off: int = 0
    all_on: int = 0  # the same, for all mounts below too
    all_off: int = 0
    propagation: tuple[int, ...] = ()
    data: str = ""  # for the file system
    idmap: str = ""  # idmap, ridmap or nothing
    copy_up: bool = False

    @property
    def bind(self) -> bool:
        """Whether this shows something that is there already."""
        return bool(self.flags & C.MS_BIND)


def parse(options: Iterable[str], kind: str = "") -> Parsed:
    """Understand a list of options; a later word overrules an earlier one.

    kind -- the mount's type: bind and none with a source are binds even without the word.
    """
    flags = on = off = all_on = all_off = 0
    propagation, data, idmap, copy_up = [], [], "", False
    for word in options:
        if word in FLAGS:
            bit, attribute, sets = FLAGS[word]
            flags = flags | bit if sets else flags & ~bit
            if word in ATIME:  # one of three, not a bit each
                on, off = on & ~C.MOUNT_ATTR__ATIME, off | C.MOUNT_ATTR__ATIME
            on, off = (on | attribute, off & ~attribute | _atime(word)) if sets else (on & ~attribute, off | attribute)
        elif word in RECURSIVE:
            attribute, sets = RECURSIVE[word]
            if word[1:] in ATIME:
                all_on, all_off = all_on & ~C.MOUNT_ATTR__ATIME, all_off | C.MOUNT_ATTR__ATIME
            all_on = all_on | attribute if sets else all_on & ~attribute
            if word[1:] not in ATIME:
                all_off = all_off & ~attribute if sets else all_off | attribute
        elif word in PROPAGATION:
            propagation.append(PROPAGATION[word])
        elif word in ("idmap", "ridmap"):
            idmap = word
        elif word == "tmpcopyup":
            copy_up = True
        elif word:
            data.append(word)
    if kind == "bind" and not flags & C.MS_BIND:
        flags |= C.MS_BIND
    if off & C.MOUNT_ATTR__ATIME:  # mount_setattr(2): all of its bits are cleared, or none
        off |= C.MOUNT_ATTR__ATIME
    return Parsed(flags, on, off, all_on, all_off, tuple(propagation), ",".join(data), idmap, copy_up)


def _atime(word: str) -> int:
    return C.MOUNT_ATTR__ATIME if word in ATIME else 0
