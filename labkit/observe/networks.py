"""Reading floor: what network namespaces hold: links, addresses, routes, and rules on demand.

Owns: the visit to each namespace, and finding out in which namespace the other end of a
veth pair is.  A visit moves the calling process by setns(2), so that only labkit.observe.visitor
calls it, in a process of its own; the answer is plain data that goes through a pipe.

Read: rtnetlink(7), veth(4), network_namespaces(7), ip-netns(8) on numbers of namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from labkit.kernel import constants as C
from labkit.kernel import rtnetlink
from labkit.kernel.netlink import Netlink
from labkit.kernel.syscalls import call
from labkit.observe.held import open_file
from labkit.observe.model import Link, Network, Route

Place = tuple[int, list[str]]  # inode of a network namespace, and paths that lead to its file
# What passes through the pipe: inode, links as tuples, routes as tuples, rules.
Plain = tuple[int, list[tuple[object, ...]], list[tuple[str, str, str]], list[str] | None]


class Seen(NamedTuple):
    """A namespace during a visit; its socket stays in it though the process goes on."""

    fd: int
    netlink: Netlink
    links: list[rtnetlink.Link]
    addresses: dict[int, list[str]]
    routes: list[rtnetlink.Route]
    rules: list[str] | None


def visit(places: Iterable[Place], rules: bool) -> list[Plain]:
    """Go into each namespace and read it; what has gone or may not be entered is left out.

    The process is back in its own namespace afterwards, and holds no other.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    own = here = os.fstat(home).st_ino
    seen: dict[int, Seen] = {}
    try:
        for inode, ways in places:
            # /proc/self/ns/net would be the one that was visited last.
            fd = os.dup(home) if inode == own else open_file(ways, inode)
            if fd is None:
                continue
            if inode != here:
                try:
                    call("setns", fd, C.CLONE_NEWNET)
                except PermissionError:
                    os.close(fd)
                    continue
                here = inode
            seen[inode] = _look(fd, rules)
        others = _other_ends(seen)
        return [_plain(inode, one, others) for inode, one in sorted(seen.items())]
    finally:
        for one in seen.values():
            one.netlink.socket.close()
            os.close(one.fd)
        if here != own:
            call("setns", home, C.CLONE_NEWNET)
        os.close(home)


def _look(fd: int, rules: bool) -> Seen:
    netlink = Netlink()
    addresses: dict[int, list[str]] = {}
    links = rtnetlink.links(netlink)
    for address in rtnetlink.addresses(netlink):
        addresses.setdefault(address.ifindex, []).append(address.text)
    return Seen(fd, netlink, links, addresses, rtnetlink.routes(netlink), _rules() if rules else None)


def _rules() -> list[str] | None:
    from labkit.errors import LabError
    from labkit.kernel import nftables  # starts programs: tens of milliseconds with its imports
    from labkit.observe import census

    try:
        return [census.rule(item) for item in nftables.ruleset() if "metainfo" not in item]
    except LabError:
        return None  # no nft, or no right to ask


def _other_ends(seen: dict[int, Seen]) -> dict[tuple[int, int], int]:
    """{(inode, index of a link): inode of the namespace that its other end is in}, for other ends elsewhere.

    A namespace has numbers of its own for others.  Each pair is first matched by index, which
    leaves one or two candidates; then the kernel is asked for the candidate's number.
    """
    ends: dict[tuple[int, int], list[int]] = {}
    for inode, one in seen.items():
        for link in one.links:
            if link.kind == "veth":
                ends.setdefault((link.ifindex, link.peer), []).append(inode)
    numbers: dict[tuple[int, int], int] = {}  # (in which, whose): number

    def number(inode: int, other: int) -> int:
        if (inode, other) not in numbers:
            numbers[inode, other] = rtnetlink.namespace_id(seen[inode].netlink, seen[other].fd)
        return numbers[inode, other]

    found = {}
    for inode, one in seen.items():
        for link in one.links:
            if link.kind != "veth" or link.peer_id < 0:
                continue
            for other in ends.get((link.peer, link.ifindex), ()):
                if number(inode, other) == link.peer_id:
                    found[inode, link.ifindex] = other
                    break
    return found


def _plain(inode: int, one: Seen, others: dict[tuple[int, int], int]) -> Plain:
    names = {link.ifindex: link.name for link in one.links}
    links: list[tuple[object, ...]] = [
        (
            *(link.ifindex, link.name, link.kind, link.up, link.mac, link.mtu, link.master),
            link.peer if link.kind == "veth" else 0,
            others.get((inode, link.ifindex), 0),
            tuple(one.addresses.get(link.ifindex, ())),
        )
        for link in sorted(one.links)
    ]
    return inode, links, [(way.to, way.via, names.get(way.ifindex, "")) for way in one.routes], one.rules


def network(plain: Plain) -> Network:
    """The plain data as an object of the model."""
    inode, links, routes, rules = plain
    return Network(
        inode,
        tuple(Link(*fields) for fields in links),  # type: ignore[arg-type]
        tuple(Route(*fields) for fields in routes),
        None if rules is None else tuple(rules),
    )
