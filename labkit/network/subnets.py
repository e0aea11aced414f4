"""Floor 2: address management: which subnet a network gets, and which address is the next.

Owns: reading a subnet, the candidates that are tried when none was asked for, the test for an
overlap with what this machine already routes, and the lowest free address.  Numbers and
socket.inet_pton do it: the module ipaddress would cost every `labkit run` 4 ms.

Read: RFC 1918 on private addresses, RFC 4193 on IPv6's unique local ones.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable
from typing import NamedTuple

from labkit.errors import BadInput, InUse, LabError

CANDIDATES = [f"172.{number}.0.0/24" for number in range(30, 16, -1)]
CANDIDATES += ["10.213.0.0/24", "10.214.0.0/24"] + [f"192.168.{number}.0/24" for number in range(213, 229)]
BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}
MOST = 1 << 16  # addresses that are looked through for a free one; nobody runs more containers here


class Subnet(NamedTuple):
    """A network's addresses: those that share their first `prefix` bits."""

    family: socket.AddressFamily
    base: int
    prefix: int

    @property
    def size(self) -> int:
        """How many addresses it has, the network's own and IPv4's broadcast among them."""
        return 1 << (BITS[self.family] - self.prefix)

    def address(self, number: int) -> str:
        """The address with that number in it; 1 is the gateway's by custom."""
        return socket.inet_ntop(self.family, (self.base + number).to_bytes(BITS[self.family] // 8, "big"))

    def holds(self, address: str) -> bool:
        """Whether the address lies in it. Raises OSError for a text that is none."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return family == self.family and 0 <= _number(address) - self.base < self.size

    def overlaps(self, other: Subnet) -> bool:
        """Whether they share an address."""
        if self.family != other.family:
            return False
        return self.base < other.base + other.size and other.base < self.base + self.size

    def __str__(self) -> str:
        return f"{self.address(0)}/{self.prefix}"


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address), "big")


def parse(text: str) -> Subnet:
    """A subnet of either family, with room for a gateway and a container. Raises BadInput."""
    address, _, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bits = BITS[family]
    why = ""
    try:
        base = _number(address)
    except OSError:
        base, why = 0, f"{address!r} is no address"
    if not length.isascii() or not length.isdigit() or not 1 <= int(length) <= bits:
        why = why or f"behind the / stands how many bits all of its addresses share: 1 to {bits}"
        raise BadInput(f"--subnet {text!r} cannot be understood", why=why, next="for example --subnet 10.5.0.0/24")
    found = Subnet(family, base >> (bits - int(length)) << (bits - int(length)), int(length))
    if why or found.base != base:
        raise BadInput(
            f"--subnet {text!r} cannot be understood",
            why=why or f"{address} is an address in it, not its first",
            next=f"--subnet {found}" if not why else "for example --subnet 10.5.0.0/24",
        )
    if found.size < 4:
        raise BadInput(f"--subnet {text} is too small", why="a gateway and a container need two usable addresses")
    return found


def choose(routed: Iterable[Subnet], planned: Iterable[Subnet]) -> Subnet:
    """The first candidate that overlaps neither a route of this machine nor another network's plan.

    Raises LabError when all do.
    """
    taken = [*routed, *planned]
    for text in CANDIDATES:
        subnet = parse(text)
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise LabError(
        "no addresses are free for another network",
        why=f"this machine has routes to all of the {len(CANDIDATES)} subnets that labkit tries by itself",
        next="name one that is free: labkit network create --subnet 10.5.0.0/24 NAME, or labkit network rm another",
    )


def choose6() -> Subnet:
    """A /64 of a new unique local prefix: its 40 random bits make a second one of these unlikely."""
    return parse(socket.inet_ntop(socket.AF_INET6, b"\xfd" + os.urandom(5) + bytes(10)) + "/64")


def refuse_overlap(subnet: Subnet, routed: Iterable[Subnet], planned: dict[str, Subnet]) -> None:
    """Raises InUse, naming the network or the route that has addresses of `subnet` already."""
    for name, other in planned.items():
        if subnet.overlaps(other):
            raise InUse(f"the subnet {subnet} is taken", why=f"network {name} has {other}", next="another --subnet")
    for other in routed:
        if subnet.overlaps(other):
            raise InUse(
                f"the subnet {subnet} is taken",
                why=f"this machine has a route to {other}: packets for containers and for that would be mixed up",
                next=f"another --subnet; who uses it: ip route show root {other}",
            )


def next_address(subnet: Subnet, taken: Collection[str], network: str) -> str:
    """The lowest address that nobody has. Raises LabError when none is left."""
    # IPv4's last is for broadcast; the first is the network's own name in both families.
    last = subnet.size - (2 if subnet.family == socket.AF_INET else 1)
    for number in range(1, min(last, MOST) + 1):
        if (address := subnet.address(number)) not in taken:
            return address
    raise LabError(
        f"network {network} has no address left",
        why=f"all {last} of {subnet} are taken, one of them by the gateway",
        next="a network with a larger --subnet, or end some of its containers: labkit network inspect " + network,
    )


def wanted(subnet: Subnet, address: str, holders: dict[str, str], option: str) -> str:
    """The address that somebody asks for by name, if it can be had.

    holders -- {address: who has it}.  Raises BadInput outside the subnet, InUse when it is taken.
    """
    try:
        inside = subnet.holds(address)
    except OSError as error:
        raise BadInput(f"{option} {address!r} is no address", next=f"one of {subnet}") from error
    text = subnet.address(_number(address) - subnet.base) if inside else address
    if not inside or text in (subnet.address(0), subnet.address(subnet.size - 1)):
        why = f"the network's addresses are {subnet}, without the first and the last"
        raise BadInput(f"{option} {address} is none of the network's", why=why)
    if text in holders:
        raise InUse(f"the address {text} is taken", why=f"{holders[text]} has it", next=f"another {option}")
    return text
