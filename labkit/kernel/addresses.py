"""Floor 1: addresses of devices, and neighbours: whose MAC stands behind an address; by rtnetlink.

Owns: one function a request, the same for IPv4 and IPv6: the text of the address says which.

Read: rtnetlink(7), ip-address(8), ip-neighbour(8), arp(7); include/uapi/linux/if_addr.h, neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from labkit.kernel.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Netlink, attribute, attributes

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
NDMSG = struct.Struct("=B3xiHBB")  # family, index, state, flags, type

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
NDA_DST, NDA_LLADDR = 1, 2
STATES = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}
PERMANENT = 0x80


class Address(NamedTuple):
    """An address of a device of this namespace."""

    ifindex: int
    text: str  # with prefix length


class Neighbour(NamedTuple):
    """Somebody on the same wire: an address, and the MAC that answers for it."""

    ifindex: int
    address: str
    mac: str  # "" while nobody has answered
    state: str


def family(address: str) -> socket.AddressFamily:
    """Of which family an address is, by its text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def packed(address: str) -> bytes:
    """The address as the kernel has it. Raises OSError for a text that is none."""
    return socket.inet_pton(family(address), address)


def _message(index: int, address: str, prefix: int) -> bytes:
    local = packed(address)
    payload = IFADDR.pack(family(address), prefix, 0, 0, index)
    return payload + attribute(IFA_LOCAL, local) + attribute(IFA_ADDRESS, local)


def add_address(netlink: Netlink, index: int, address: str, prefix: int) -> None:
    """ip addr add ADDRESS/PREFIX. Raises OSError EEXIST when it is there.

    An IPv6 address is added "nodad": who gives addresses out knows that nobody else has it, and
    until duplicate address detection is over (a second) it could not be used.
    """
    payload = _message(index, address, prefix)
    if family(address) == socket.AF_INET:
        spread = int.from_bytes(packed(address), "big") | ((1 << (32 - prefix)) - 1)
        payload += attribute(IFA_BROADCAST, spread.to_bytes(4, "big"))
    else:
        payload += attribute(IFA_FLAGS, IFA_F_NODAD)
    netlink.request(
        RTM_NEWADDR, payload, flags=NLM_F_CREATE | NLM_F_EXCL, what=f"add address {address}/{prefix} to device {index}"
    )


def delete_address(netlink: Netlink, index: int, address: str, prefix: int) -> None:
    """ip addr del ADDRESS/PREFIX. Raises OSError EADDRNOTAVAIL when it is not there."""
    what = f"delete address {address}/{prefix} from device {index}"
    netlink.request(RTM_DELADDR, _message(index, address, prefix), what=what)


def addresses(netlink: Netlink) -> list[Address]:
    """Every address of this namespace, as `ip address` lists them."""
    answers = netlink.request(RTM_GETADDR, IFADDR.pack(0, 0, 0, 0, 0), flags=NLM_F_DUMP, what="list addresses")
    return [_read(answer.payload) for answer in answers]


def _read(payload: bytes) -> Address:
    kind, prefix, _, _, index = IFADDR.unpack_from(payload)
    found = dict(attributes(payload[IFADDR.size :]))
    # Of a point-to-point device, IFA_ADDRESS is the other side; IPv6 has IFA_LOCAL only there.
    own = found.get(IFA_LOCAL) or found[IFA_ADDRESS]
    return Address(index, f"{socket.inet_ntop(kind, own)}/{prefix}")


# --- neighbours --------------------------------------------------------------------------


def add_neighbour(netlink: Netlink, index: int, address: str, mac: bytes) -> None:
    """ip neighbour replace ADDRESS lladdr MAC: known for good, nobody is asked."""
    payload = NDMSG.pack(family(address), index, PERMANENT, 0, 0)
    payload += attribute(NDA_DST, packed(address)) + attribute(NDA_LLADDR, mac)
    netlink.request(
        RTM_NEWNEIGH, payload, flags=NLM_F_CREATE | NLM_F_REPLACE, what=f"tell device {index} who has {address}"
    )


def delete_neighbour(netlink: Netlink, index: int, address: str) -> None:
    """ip neighbour del ADDRESS. Raises OSError ENOENT when it is not known."""
    payload = NDMSG.pack(family(address), index, 0, 0, 0) + attribute(NDA_DST, packed(address))
    netlink.request(RTM_DELNEIGH, payload, what=f"make device {index} forget who has {address}")


def neighbours(netlink: Netlink) -> list[Neighbour]:
    """Who is known to be on the wire of each device: the ARP cache, and IPv6's."""
    found = []
    for answer in netlink.request(RTM_GETNEIGH, NDMSG.pack(0, 0, 0, 0, 0), flags=NLM_F_DUMP, what="list neighbours"):
        kind, index, state, _, _ = NDMSG.unpack_from(answer.payload)
        values = dict(attributes(answer.payload[NDMSG.size :]))
        if kind not in (socket.AF_INET, socket.AF_INET6) or state not in STATES or STATES[state] == "noarp":
            continue  # a multicast address needs no answer: `ip neighbour` leaves these out too
        address = socket.inet_ntop(kind, values[NDA_DST])
        found.append(Neighbour(index, address, values.get(NDA_LLADDR, b"").hex(":"), STATES[state]))
    return found
