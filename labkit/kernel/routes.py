"""Floor 1: routes, by rtnetlink: which way a packet for a network goes.

Owns: adding and removing a way of the main table, and reading it; the same for IPv4 and IPv6.

Read: rtnetlink(7), ip-route(8), include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from labkit.kernel.addresses import family, packed
from labkit.kernel.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Netlink, attribute, attributes

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
NEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 1, 4, 5, 9, 15, 18
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTM_F_CLONED = 0x200


class Route(NamedTuple):
    """A way of the main table; a route with several next hops is several of these."""

    to: str  # network with prefix length, or default
    via: str  # the gateway, or ""
    ifindex: int  # 0: none, as of a route that refuses


def _message(to: str, via: str, index: int, scope: int) -> bytes:
    """A way to the network `to` (default: everywhere else), by the gateway `via`, out of device `index`."""
    address, _, prefix = ("", "", "0") if to == "default" else to.partition("/")
    kind = family(address or via)
    payload = RTMSG.pack(kind, int(prefix), 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    payload += attribute(RTA_DST, packed(address)) if address else b""
    payload += attribute(RTA_GATEWAY, packed(via)) if via else b""
    return payload + (attribute(RTA_OIF, index) if index else b"")


def add_route(netlink: Netlink, to: str, *, via: str = "", index: int = 0) -> None:
    """ip route add TO [via GATEWAY] [dev DEVICE]. Raises OSError: EEXIST, or the kernel's word on the gateway."""
    scope = RT_SCOPE_UNIVERSE if via or ":" in to else RT_SCOPE_LINK
    what = f"add a route to {to}" + (f" by {via}" if via else f" out of device {index}")
    if to == "default" and via:
        what = f"add a default route by {via}"
    netlink.request(RTM_NEWROUTE, _message(to, via, index, scope), flags=NLM_F_CREATE | NLM_F_EXCL, what=what)


def add_default_route(netlink: Netlink, gateway: str) -> None:
    """ip route add default via GATEWAY."""
    add_route(netlink, "default", via=gateway)


def delete_route(netlink: Netlink, to: str, *, via: str = "", index: int = 0) -> None:
    """ip route del. Raises OSError ESRCH when there is no such way."""
    netlink.request(RTM_DELROUTE, _message(to, via, index, RT_SCOPE_NOWHERE), what=f"delete the route to {to}")


def routes(netlink: Netlink) -> list[Route]:
    """The main table of this namespace, as `ip route` and `ip -6 route` list it."""
    payload = RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)
    answers = netlink.request(RTM_GETROUTE, payload, flags=NLM_F_DUMP, what="list routes")
    return [route for answer in answers for route in _read(answer.payload)]


def destinations(netlink: Netlink, kind: int = socket.AF_INET) -> list[tuple[str, int]]:
    """The networks that this machine has a route to, in any table: (address, prefix length)."""
    payload = RTMSG.pack(kind, 0, 0, 0, 0, 0, 0, 0, 0)
    found = []
    for answer in netlink.request(RTM_GETROUTE, payload, flags=NLM_F_DUMP, what="list routes"):
        values = dict(attributes(answer.payload[RTMSG.size :]))
        if answer.payload[0] == kind and RTA_DST in values:
            found.append((socket.inet_ntop(kind, values[RTA_DST]), answer.payload[1]))
    return found


def _read(payload: bytes) -> list[Route]:
    kind, length, _, _, table, _, _, _, flags = RTMSG.unpack_from(payload)
    found = dict(attributes(payload[RTMSG.size :]))
    if kind not in (socket.AF_INET, socket.AF_INET6) or flags & RTM_F_CLONED:
        return []  # a multicast route's family has a number of its own; a clone is a cache's
    if int.from_bytes(found.get(RTA_TABLE, bytes([table])), "little") != RT_TABLE_MAIN:
        return []
    to = f"{socket.inet_ntop(kind, found[RTA_DST])}/{length}" if RTA_DST in found else "default"
    if RTA_MULTIPATH not in found:
        return [_hop(to, kind, found, int.from_bytes(found.get(RTA_OIF, b""), "little"))]
    hops, at, several = [], 0, found[RTA_MULTIPATH]
    while at + NEXTHOP.size <= len(several):
        size, _, _, index = NEXTHOP.unpack_from(several, at)
        if size < NEXTHOP.size:
            break
        hops.append(_hop(to, kind, dict(attributes(several[at + NEXTHOP.size : at + size])), index))
        at += (size + 3) & ~3
    return hops


def _hop(to: str, kind: int, found: dict[int, bytes], index: int) -> Route:
    via = socket.inet_ntop(kind, found[RTA_GATEWAY]) if RTA_GATEWAY in found else ""
    if RTA_VIA in found:  # a gateway of the other family: struct rtvia
        other = found[RTA_VIA]
        via = socket.inet_ntop(int.from_bytes(other[:2], "little"), other[2:])
    return Route(to, via, index)
