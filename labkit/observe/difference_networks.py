"""Reading floor: the difference of what network namespaces hold.

Owns: when a link is the same link, and what a new namespace is compared with: one that has
nothing but a loopback device which is down.

Read: network_namespaces(7), ip-link(8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from labkit.observe.model import Change, Link, Network, Snapshot

LOOPBACK = 1  # the kernel makes it first in each namespace
EVER = Link(LOOPBACK, "lo", "", False, "00:00:00:00:00:00", 65536, 0, 0, 0, ())


def compare(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """The changes of links, addresses, routes and rules, in order of network namespace."""
    several = len({*before.networks, *after.networks}) > 1
    for inode in sorted({*before.networks, *after.networks}):
        old, new = before.networks.get(inode), after.networks.get(inode)
        if new is None:
            continue  # with a network namespace all in it goes; that is one change, of the namespace
        if old is None:
            known = ("net", inode) in before.namespaces
            if known:
                continue  # it was there, and could not be read
            old = Network(inode, (EVER,), (), None if new.rules is None else ())
        where = f" in net:[{inode}]" if several else ""
        yield from _links(old, new, where)
        yield from _listed("route", _routes(old), _routes(new), where)
        if old.rules is not None and new.rules is not None:
            yield from _listed("rule", old.rules, new.rules, where)


def _links(old: Network, new: Network, where: str) -> Iterator[Change]:
    first, second = ({link.index: link for link in one.links} for one in (old, new))
    for index in sorted({*first, *second}):
        was, now = first.get(index), second.get(index)
        if was and now and was.kind != now.kind:  # another device with the number of one that went
            yield Change("-", "link", f"{was.name}{where}", describe(was, first))
            was = None
        if now is None:
            assert was is not None
            yield Change("-", "link", f"{was.name}{where}", describe(was, first))
            continue
        if was is None:
            yield Change("+", "link", f"{now.name}{where}", describe(now, second))
        elif said := ", ".join(_changed(was, now, first, second)):
            yield Change("~", "link", f"{now.name}{where}", said)
        yield from _listed("address", was.addresses if was else (), now.addresses, f" on {now.name}{where}")


def _changed(was: Link, now: Link, first: Mapping[int, Link], second: Mapping[int, Link]) -> Iterator[str]:
    if was.name != now.name:
        yield f"was called {was.name}"
    if was.up != now.up:
        yield "down -> up" if now.up else "up -> down"
    if was.mac != now.mac:
        yield f"address {was.mac} -> {now.mac}"
    if was.mtu != now.mtu:
        yield f"mtu {was.mtu} -> {now.mtu}"
    if was.master != now.master:
        yield f"port of {_master(was, first) or 'nothing'} -> {_master(now, second) or 'nothing'}"
    if (was.peer, was.peer_network) != (now.peer, now.peer_network):
        yield "the other end is in another network namespace"


def _master(link: Link, links: Mapping[int, Link]) -> str:
    return links[link.master].name if link.master in links else f"device {link.master}" if link.master else ""


def describe(link: Link, links: Mapping[int, Link]) -> str:
    """veth, up, port of br0, the other end being eth0."""
    parts = [link.kind or "device", "up" if link.up else "down"]
    if link.master:
        parts.append(f"port of {_master(link, links)}")
    if link.peer:
        parts.append(f"the other end {_end(link, links)}")
    return ", ".join(parts)


def _end(link: Link, links: Mapping[int, Link]) -> str:
    if link.peer_network:
        return f"in net:[{link.peer_network}]"
    return links[link.peer].name if link.peer in links else "out of sight"


def _routes(network: Network) -> tuple[str, ...]:
    return tuple(
        f"{way.to}{f' via {way.via}' if way.via else ''}{f' by {way.device}' if way.device else ''}"
        for way in network.routes
    )


def _listed(kind: str, old: tuple[str, ...], new: tuple[str, ...], where: str) -> Iterator[Change]:
    first, second = Counter(old), Counter(new)
    yield from (Change("+", kind, name, where.strip()) for name in (second - first).elements())
    yield from (Change("-", kind, name, where.strip()) for name in (first - second).elements())
