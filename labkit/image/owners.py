"""Floor 2: whose files they are, when a layer is unpacked for a user namespace.

Owns: translating owners and capabilities from the ids inside the namespace to those outside,
as /proc/PID/uid_map would: the files then have, seen from inside, the owners that the layer
says.

Read: user_namespaces(7) on uid_map; capabilities(7) on "Namespaced file capabilities".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from labkit.errors import BadInput

CAPABILITY = "security.capability"
VERSION_2, VERSION_3, FLAGS = 0x02000000, 0x03000000, 0x00FFFFFF


class Range(NamedTuple):
    """One line of a map: `length` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    length: int


class Owners(NamedTuple):
    """The maps of a user namespace."""

    users: Sequence[Range]
    groups: Sequence[Range]

    def user(self, uid: int) -> int:
        """The uid outside. Raises BadInput for one that the namespace does not have."""
        return _translate(self.users, uid, "user")

    def group(self, gid: int) -> int:
        """The gid outside. Raises BadInput."""
        return _translate(self.groups, gid, "group")

    def xattr(self, key: str, value: bytes) -> bytes:
        """Capabilities hold in the namespace of a root: version 3 says of which (its uid outside)."""
        if key != CAPABILITY or len(value) != 20:
            return value
        (magic,) = struct.unpack_from("<I", value)
        if magic & ~FLAGS != VERSION_2:
            return value
        return struct.pack("<I", VERSION_3 | magic & FLAGS) + value[4:] + struct.pack("<I", self.user(0))


def _translate(ranges: Sequence[Range], number: int, what: str) -> int:
    for inside, outside, length in ranges:
        if inside <= number < inside + length:
            return outside + number - inside
    listed = ", ".join(f"{inside} to {inside + length - 1}" for inside, _, length in ranges)
    raise BadInput(
        f"a layer's file belongs to {what} {number}, whom the user namespace does not have",
        why=f"it has {listed or 'none'}",
        next="give the namespace more subordinate ids (/etc/subuid, /etc/subgid)",
    )
