"""Floor 1: network devices, addresses and routes, by rtnetlink.

Owns: the requests that a bridge network needs, one function each.  All act in the
network namespace of the calling process.

Read: rtnetlink(7), ip-link(8), include/uapi/linux/if_link.h, veth(4).
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from labkit.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Netlink,
    attribute,
    attributes,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_NEWROUTE, RTM_GETROUTE = 20, 24, 26

IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_IFALIAS = 18, 19, 20
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE = 4
VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_GATEWAY = 1, 5
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
IFF_UP = 1


class Link(NamedTuple):
    """A network device of this namespace."""

    ifindex: int
    name: str
    up: bool
    master: int  # index of the bridge it is a port of, or 0
    peer: int  # of a veth: the other end's index, in that end's namespace
    alias: str
    kind: str
    mac: str


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def create_bridge(netlink: Netlink, name: str) -> None:
    """A new bridge. Raises OSError EEXIST when there is a device of that name."""
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "bridge"))
    netlink.request(
        RTM_NEWLINK,
        _link() + attribute(IFLA_IFNAME, name) + info,
        flags=NLM_F_CREATE | NLM_F_EXCL,
        what=f"create bridge {name}",
    )


def create_veth(netlink: Netlink, name: str, peer: str, pid: int, mac: bytes, master: int) -> None:
    """A veth pair: `name` here, a port of bridge `master`; `peer` born in the namespace of `pid`."""
    other = _link() + attribute(IFLA_IFNAME, peer) + attribute(IFLA_ADDRESS, mac) + attribute(IFLA_NET_NS_PID, pid)
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "veth") + data)
    netlink.request(
        RTM_NEWLINK,
        _link(flags=IFF_UP, change=IFF_UP) + attribute(IFLA_IFNAME, name) + attribute(IFLA_MASTER, master) + info,
        flags=NLM_F_CREATE | NLM_F_EXCL,
        what=f"create veth pair {name} and {peer}",
    )


def set_up(netlink: Netlink, index: int) -> None:
    """ip link set up."""
    netlink.request(RTM_NEWLINK, _link(index, IFF_UP, IFF_UP), what=f"set device {index} up")


def set_hairpin(netlink: Netlink, index: int) -> None:
    """bridge link set hairpin on: a frame may leave by the port of the bridge by which it came."""
    data = attribute(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, b"\1"))
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_SLAVE_KIND, "bridge") + data)
    netlink.request(RTM_NEWLINK, _link(index) + info, what=f"let frames turn round at device {index}")


def set_alias(netlink: Netlink, index: int, alias: str) -> None:
    """A note on a device that `ip link` shows: whose it is."""
    netlink.request(RTM_NEWLINK, _link(index) + attribute(IFLA_IFALIAS, alias), what=f"name the owner of {index}")


def delete_link(netlink: Netlink, index: int) -> None:
    """Remove a device; with one end of a veth pair the other goes too."""
    netlink.request(RTM_DELLINK, _link(index), what=f"delete device {index}")


def delete_link_if_there(name: str) -> None:
    """Remove the device called `name`; none is fine."""
    try:
        index = socket.if_nametoindex(name)
        with Netlink() as netlink:
            delete_link(netlink, index)
    except OSError as error:
        if error.errno not in (19, None):  # ENODEV: it went by itself, with the other end
            raise


def links(netlink: Netlink) -> list[Link]:
    """Every device of this namespace."""
    answers = netlink.request(RTM_GETLINK, _link(), flags=NLM_F_DUMP, what="list devices")
    return [_read_link(answer.payload) for answer in answers]


def _read_link(payload: bytes) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    found = dict(attributes(payload[IFINFO.size :]))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))

    def number(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""), "little")

    return Link(
        index,
        _text(found.get(IFLA_IFNAME, b"")),
        bool(flags & IFF_UP),
        number(IFLA_MASTER),
        number(IFLA_LINK),
        _text(found.get(IFLA_IFALIAS, b"")),
        _text(info.get(IFLA_INFO_KIND, b"")),
        found.get(IFLA_ADDRESS, b"").hex(":"),
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def add_address(netlink: Netlink, index: int, address: str, prefix: int) -> None:
    """ip addr add ADDRESS/PREFIX. Raises OSError EEXIST when it is there."""
    local = socket.inet_aton(address)
    spread = int.from_bytes(local, "big") | ((1 << (32 - prefix)) - 1)
    payload = IFADDR.pack(socket.AF_INET, prefix, 0, 0, index)
    payload += attribute(IFA_LOCAL, local) + attribute(IFA_ADDRESS, local)
    payload += attribute(IFA_BROADCAST, spread.to_bytes(4, "big"))
    netlink.request(
        RTM_NEWADDR, payload, flags=NLM_F_CREATE | NLM_F_EXCL, what=f"add address {address}/{prefix} to device {index}"
    )


def add_default_route(netlink: Netlink, gateway: str) -> None:
    """ip route add default via GATEWAY."""
    payload = RTMSG.pack(socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0)
    payload += attribute(RTA_GATEWAY, socket.inet_aton(gateway))
    netlink.request(RTM_NEWROUTE, payload, flags=NLM_F_CREATE | NLM_F_EXCL, what=f"add a default route by {gateway}")


def destinations(netlink: Netlink) -> list[tuple[str, int]]:
    """The IPv4 networks that this machine has a route to: (address, prefix length)."""
    payload = RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    found = []
    for answer in netlink.request(RTM_GETROUTE, payload, flags=NLM_F_DUMP, what="list routes"):
        prefix = answer.payload[1]
        values = dict(attributes(answer.payload[RTMSG.size :]))
        if RTA_DST in values and len(values[RTA_DST]) == 4:
            found.append((socket.inet_ntoa(values[RTA_DST]), prefix))
    return found
