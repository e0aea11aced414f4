"""Floor 1: network devices, by rtnetlink: made, moved, renamed, read, removed.

Owns: one function a request about a link, and what a dump of links says.  All act in the
network namespace that the socket was opened in.  Ports of a bridge: labkit.kernel.bridgeports.

Read: rtnetlink(7), ip-link(8), include/uapi/linux/if_link.h, veth(4);
Documentation/networking/ipvlan.rst on its modes.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from labkit.kernel.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Netlink, attribute, attributes

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_GETNSID = 16, 17, 18, 90

IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_IFALIAS = 18, 19, 20
IFLA_STATS64, IFLA_LINK_NETNSID = 23, 37
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE = 1
NETNSA_NSID, NETNSA_FD = 1, 3  # include/uapi/linux/net_namespace.h
IFF_UP = 1
LONGEST_NAME = 15  # bytes: IFNAMSIZ is 16, and a null byte ends the name

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}


class Link(NamedTuple):
    """A network device of this namespace."""

    ifindex: int
    name: str
    up: bool
    master: int  # index of the bridge it is a port of, or 0
    peer: int  # of a veth: the other end's index, in that end's namespace; of a macvlan: its parent's
    alias: str
    kind: str
    mac: str
    mtu: int  # bytes
    peer_id: int  # this namespace's number for the one that the other end is in (`namespace_id`); -1: this one


class Counters(NamedTuple):
    """What has passed through a device since it exists, as `ip -s link` counts."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


COUNTERS = struct.Struct("=8Q")  # the beginning of struct rtnl_link_stats64


def message(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """The fixed part of every request about a link: which, and which of its flags shall be what."""
    return IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


# --- making ------------------------------------------------------------------------------


def _create(netlink: Netlink, kind: str, name: str, *, data: bytes = b"", more: bytes = b"", flags: int = 0) -> None:
    info = attribute(IFLA_INFO_KIND, kind) + (attribute(IFLA_INFO_DATA, data) if data else b"")
    netlink.request(
        RTM_NEWLINK,
        message(flags=flags, change=flags) + attribute(IFLA_IFNAME, name) + more + attribute(IFLA_LINKINFO, info),
        flags=NLM_F_CREATE | NLM_F_EXCL,
        what=f"create {kind} {name}",
    )


def create_bridge(netlink: Netlink, name: str, mac: bytes = b"") -> None:
    """A new bridge. Raises OSError EEXIST when there is a device of that name.

    mac -- its own; without one it takes the lowest of its ports', and changes it as they come and go.
    """
    _create(netlink, "bridge", name, more=attribute(IFLA_ADDRESS, mac) if mac else b"")


def create_dummy(netlink: Netlink, name: str) -> None:
    """A device that swallows what is sent to it: a place for addresses and for trials."""
    _create(netlink, "dummy", name)


def create_veth(netlink: Netlink, name: str, peer: str, pid: int, mac: bytes, master: int, *, mtu: int = 0) -> None:
    """A veth pair: `name` here, a port of bridge `master` (0: of none); `peer` born in the namespace of `pid`.

    mtu -- of both ends, in bytes; 0: the kernel's 1500.
    """
    size = attribute(IFLA_MTU, mtu) if mtu else b""
    other = message() + attribute(IFLA_IFNAME, peer) + attribute(IFLA_ADDRESS, mac) + attribute(IFLA_NET_NS_PID, pid)
    ours = size + (attribute(IFLA_MASTER, master) if master else b"")
    _create(netlink, "veth", name, data=attribute(VETH_INFO_PEER, other + size), more=ours, flags=IFF_UP)


def create_macvlan(netlink: Netlink, name: str, parent: int, pid: int, mac: bytes, *, mode: str = "bridge") -> None:
    """A device with a MAC of its own on top of device `parent`, born in the namespace of `pid`."""
    more = attribute(IFLA_LINK, parent) + attribute(IFLA_ADDRESS, mac) + attribute(IFLA_NET_NS_PID, pid)
    _create(netlink, "macvlan", name, data=attribute(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]), more=more)


def create_ipvlan(netlink: Netlink, name: str, parent: int, pid: int, *, mode: str = "l2") -> None:
    """A device on top of `parent` that shares its MAC, and is told apart by address; born where `pid` is."""
    more = attribute(IFLA_LINK, parent) + attribute(IFLA_NET_NS_PID, pid)
    data = attribute(IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode]))
    _create(netlink, "ipvlan", name, data=data, more=more)


# --- changing ----------------------------------------------------------------------------


def set_up(netlink: Netlink, index: int) -> None:
    """ip link set up."""
    netlink.request(RTM_NEWLINK, message(index, IFF_UP, IFF_UP), what=f"set device {index} up")


def set_down(netlink: Netlink, index: int) -> None:
    """ip link set down."""
    netlink.request(RTM_NEWLINK, message(index, 0, IFF_UP), what=f"set device {index} down")


def set_alias(netlink: Netlink, index: int, alias: str) -> None:
    """A note on a device that `ip link` shows: whose it is."""
    netlink.request(RTM_NEWLINK, message(index) + attribute(IFLA_IFALIAS, alias), what=f"name the owner of {index}")


def set_mtu(netlink: Netlink, index: int, mtu: int) -> None:
    """ip link set mtu: the largest packet, in bytes without the Ethernet header."""
    netlink.request(RTM_NEWLINK, message(index) + attribute(IFLA_MTU, mtu), what=f"set the MTU of {index} to {mtu}")


def set_mac(netlink: Netlink, index: int, mac: bytes) -> None:
    """ip link set address."""
    netlink.request(RTM_NEWLINK, message(index) + attribute(IFLA_ADDRESS, mac), what=f"set the MAC of {index}")


def set_master(netlink: Netlink, index: int, master: int) -> None:
    """Make the device a port of bridge `master`; 0 takes it out of its bridge."""
    netlink.request(RTM_NEWLINK, message(index) + attribute(IFLA_MASTER, master), what=f"put {index} into {master}")


def rename(netlink: Netlink, index: int, name: str) -> None:
    """ip link set name. Raises OSError EBUSY on older kernels while the device is up (before Linux 6.2)."""
    netlink.request(RTM_NEWLINK, message(index) + attribute(IFLA_IFNAME, name), what=f"rename {index} to {name}")


def move(netlink: Netlink, index: int, pid: int, *, name: str = "") -> None:
    """Send the device to the network namespace of `pid`, there called `name` when given; it arrives down."""
    new = attribute(IFLA_IFNAME, name) if name else b""
    request = message(index) + attribute(IFLA_NET_NS_PID, pid) + new
    netlink.request(RTM_NEWLINK, request, what=f"move device {index} to the network namespace of {pid}")


def delete_link(netlink: Netlink, index: int) -> None:
    """Remove a device; with one end of a veth pair the other goes too."""
    netlink.request(RTM_DELLINK, message(index), what=f"delete device {index}")


def delete_link_if_there(name: str) -> None:
    """Remove the device called `name`; none is fine."""
    try:
        index = socket.if_nametoindex(name)
        with Netlink() as netlink:
            delete_link(netlink, index)
    except OSError as error:
        if error.errno not in (19, None):  # ENODEV: it went by itself, with the other end
            raise


# --- reading -----------------------------------------------------------------------------


def links(netlink: Netlink) -> list[Link]:
    """Every device of this namespace."""
    answers = netlink.request(RTM_GETLINK, message(), flags=NLM_F_DUMP, what="list devices")
    return [_read(answer.payload) for answer in answers]


def find_link(netlink: Netlink, name: str) -> Link | None:
    """The device called `name`; None when there is none."""
    if not 0 < len(name.encode()) <= LONGEST_NAME:
        return None
    try:
        answers = netlink.request(RTM_GETLINK, message() + attribute(IFLA_IFNAME, name), what=f"look for {name}")
    except OSError as error:
        if error.errno == 19:  # ENODEV
            return None
        raise
    return _read(answers[0].payload)


def counters(netlink: Netlink) -> dict[int, Counters]:
    """{index: what has passed through it} of every device of this namespace."""
    found = {}
    for answer in netlink.request(RTM_GETLINK, message(), flags=NLM_F_DUMP, what="count what passed"):
        _, _, index, _, _ = IFINFO.unpack_from(answer.payload)
        values = dict(attributes(answer.payload[IFINFO.size :]))
        if IFLA_STATS64 in values:
            found[index] = Counters(*COUNTERS.unpack_from(values[IFLA_STATS64]))
    return found


def _read(payload: bytes) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    found = dict(attributes(payload[IFINFO.size :]))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))

    def number(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""), "little")

    return Link(
        index,
        text(found.get(IFLA_IFNAME, b"")),
        bool(flags & IFF_UP),
        number(IFLA_MASTER),
        number(IFLA_LINK),
        text(found.get(IFLA_IFALIAS, b"")),
        text(info.get(IFLA_INFO_KIND, b"")),
        found.get(IFLA_ADDRESS, b"").hex(":"),
        number(IFLA_MTU),
        struct.unpack("=i", found.get(IFLA_LINK_NETNSID, b"\xff" * 4))[0],
    )


def text(value: bytes) -> str:
    """An attribute's text, without the null byte that ends it."""
    return value.rstrip(b"\0").decode(errors="replace")


def namespace_id(netlink: Netlink, fd: int) -> int:
    """The number that the socket's network namespace has for the one behind `fd`; -1: none (ip-netns(8)).

    Raises OSError when `fd` is no network namespace.
    """
    payload = struct.pack("=B3x", socket.AF_UNSPEC) + attribute(NETNSA_FD, fd)
    (answer,) = netlink.request(RTM_GETNSID, payload, what="ask for the number of a network namespace")
    return int(struct.unpack("=i", dict(attributes(answer.payload[4:]))[NETNSA_NSID])[0])
