"""Drawing floor: network namespaces as boxes, veth pairs as the wires between them.

Owns: what stands in which box: links with their addresses, ports under their bridge,
the way out, and what a caller has counted there.  The first namespace (of the oldest
process) is at the left, the others stand below each other at the right;
labkit/draw/cabling.py finds the wires' ways between them.

Read: network_namespaces(7), veth(4), bridge(8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from labkit.draw.cabling import End, Wire, lanes
from labkit.draw.svg import DEEP_BLUE, DEEP_GREEN, DEEP_ORANGE, DEEP_RED, FAINT, GREY, PAPER, Canvas, Picture
from labkit.draw.tags import Tag, order, tag, tags
from labkit.draw.words import clean
from labkit.observe.model import Link, Network, Snapshot

BOXES, LINKS, ADDRESSES, ROUTES = 24, 24, 3, 3  # of each that are drawn; the rest is counted
LEFT, RIGHT, TOPS, GAP = (12, 352), (462, 786), (16, 20), 20  # pixels: where the two columns of boxes begin and end
# Height of a box's head, of a link's first line, of a further line.  With these and GAP, wires
# from the left lie at other multiples of four pixels than those from the right: none hides another.
TITLE, NAME, SMALL, FOOT = 44, 24, 16, 8


class Line(NamedTuple):
    """One line in a box."""

    what: str  # link, address, count, route, note
    words: str
    aside: str = ""  # at the right
    link: Link | None = None
    port: bool = False  # of the bridge above it


Names = Mapping[int, str]  # {pid: what a lesson calls the network that it is in}
Counted = Mapping[tuple[str, str], str]  # {(such a name, device): what was counted there}; device "": the network's


def wiring(snapshot: Snapshot, names: Names | None = None, counted: Counted | None = None) -> Picture:
    """Every network namespace of the snapshot that fits, the first one at the left.

    names   -- only the networks of these processes, in this order, with these titles.
    counted -- a line more under a device, or at the end of a box.
    """
    named = {snapshot.processes[pid].namespaces["net"]: name for pid, name in (names or {}).items()}
    networks = [snapshot.networks[inode] for inode in named] if names else _ordered(snapshot)
    drawn, hidden = networks[:BOXES], networks[BOXES:]
    letters = tags(snapshot, order(snapshot.processes.values()))
    for number, (inode, name) in enumerate(named.items()):
        letters["net", inode] = tag(number)._replace(letter=clean(name))
    columns = [drawn[:1], drawn[1:]]
    ends: dict[tuple[int, int], End] = {}  # {(network, link): where its wire begins}
    places: list[tuple[Network, float, float, float, list[Line]]] = []
    bottom = 0.0
    for column, members in enumerate(columns):
        top = float(TOPS[column])
        for network in members:
            lines = list(_lines(network, snapshot, letters, named.get(network.inode, ""), counted or {}))
            height = TITLE + sum(_height(line) for line in lines) + FOOT
            places.append((network, (LEFT, RIGHT)[column][0], top, height, lines))
            at = top + TITLE
            for line in lines:
                if line.link is not None and line.what == "link":
                    ends[network.inode, line.link.index] = End(column, at + NAME / 2)
                at += _height(line)
            top += height + GAP
        bottom = max(bottom, top)
    note = f"and {len(hidden)} more network namespaces, not drawn" if hidden else ""
    canvas = Canvas(820, bottom + (20 if note else 0) if networks else 60, "network namespaces and their wires")
    if not networks:
        canvas.text(LEFT[0], 34, "no network namespace in this snapshot", 12, FAINT)
        return canvas.picture("no network namespace in this snapshot")
    for network, x, top, height, lines in places:
        _box(canvas, x, top, height, network, lines, snapshot, letters, named)
    _wires(canvas, drawn, ends)
    if note:
        canvas.text(LEFT[0], bottom + 8, note, 11.5, FAINT)
    twin = [line for network, *_, lines in places for line in _said(network, lines, snapshot, letters, named)]
    return canvas.picture("\n".join(twin + ([note] if note else [])))


def _ordered(snapshot: Snapshot) -> list[Network]:
    """The network of the oldest process first; those without a process last, by the file that holds them."""
    met = [process.namespaces["net"] for process in order(snapshot.processes.values()) if "net" in process.namespaces]
    files = sorted((space.files, space.inode) for space in snapshot.namespaces.values() if space.kind == "net")
    inodes = dict.fromkeys([*met, *(inode for held, inode in files if held), *sorted(snapshot.networks)])
    return [snapshot.networks[inode] for inode in inodes if inode in snapshot.networks]


def _lines(network: Network, snapshot: Snapshot, letters: dict[tuple[str, int], Tag], name: str,
           counted: Counted) -> Iterator[Line]:  # fmt: skip
    links = _by_bridge(network.links)
    bridges = {link.index for link in network.links if link.kind == "bridge"}
    for link in links[:LINKS]:
        port = link.master in bridges
        yield Line("link", clean(link.name), _aside(link, network, snapshot, letters), link, port)
        yield from (Line("address", clean(address), link=link, port=port) for address in link.addresses[:ADDRESSES])
        if more := len(link.addresses) - ADDRESSES:
            yield from [Line("address", f"and {more} more addresses", link=link, port=port)] if more > 0 else []
        if words := counted.get((name, link.name)):
            yield Line("count", clean(words), link=link, port=port)
    if len(links) > LINKS:
        yield Line("note", f"and {len(links) - LINKS} more links, not drawn")
    # A route without a gateway says no more than the address on its device.
    ways = [route for route in network.routes if route.via or route.to == "default"]
    for route in ways[:ROUTES]:
        via = f" via {clean(route.via)}" if route.via else ""
        yield Line("route", f"{clean(route.to)}{via} dev {clean(route.device)}")
    if len(ways) > ROUTES:
        yield Line("note", f"and {len(ways) - ROUTES} more routes")
    if not any(route.to == "default" for route in network.routes):
        yield Line("note", "no default route")
    yield from (Line("count", clean(words)) for words in counted.get((name, ""), "").splitlines())


def _by_bridge(links: Sequence[Link]) -> list[Link]:
    """By index, and every port right below its bridge."""
    bridges = {link.index for link in links if link.kind == "bridge"}
    ports: dict[int, list[Link]] = {}
    for link in sorted(links, key=lambda link: link.index):
        if link.master in bridges and link.kind != "bridge":
            ports.setdefault(link.master, []).append(link)
    alone = [link for link in sorted(links, key=lambda link: link.index)
             if link.master not in bridges or link.kind == "bridge"]  # fmt: skip
    return [one for link in alone for one in (link, *(ports.get(link.index, []) if link.kind == "bridge" else []))]


def _other(link: Link, network: Network, snapshot: Snapshot) -> tuple[int, Link] | None:
    """(network, link) at the other end of a veth, when the snapshot has it and it says the same of this end."""
    inode = link.peer_network or network.inode
    found = snapshot.networks.get(inode)
    if link.kind != "veth" or not link.peer or found is None:
        return None
    for other in found.links:
        back = other.peer_network or inode
        # The way back may lead to a namespace that this reader could not name.
        if (other.index == link.peer and other.kind == "veth" and other.peer == link.index
                and back in (network.inode, inode) and other is not link):  # fmt: skip
            return inode, other
    return None


def _aside(link: Link, network: Network, snapshot: Snapshot, letters: dict[tuple[str, int], Tag]) -> str:
    state = "" if link.up else ", down"
    if link.kind != "veth":
        return (clean(link.kind) + state).removeprefix(", ")
    found = _other(link, network, snapshot)
    if found is None:
        return f"veth, other end not seen{state}"
    inode, other = found
    where = "" if inode == network.inode else f" in {letters['net', inode].letter}"
    return f"veth to {clean(other.name)}{where}{state}"


def _height(line: Line) -> float:
    return NAME if line.what == "link" else SMALL


def _title(network: Network, letters: dict[tuple[str, int], Tag], named: Names) -> str:
    kind = "" if network.inode in named else "network namespace "
    return f"{kind}{letters['net', network.inode].letter}"


def _who(network: Network, snapshot: Snapshot, named: Names) -> str:
    if network.inode in named:  # who lives there stands in the title already
        return "a network namespace"
    members = [one for one in order(snapshot.processes.values()) if one.namespaces.get("net") == network.inode]
    space = snapshot.namespaces.get(("net", network.inode))
    if members:
        more = f" and {len(members) - 1} more" if len(members) > 1 else ""
        return f"{clean(members[0].name)}, pid {members[0].pid}{more}"
    if space and space.members:
        return f"pid {space.members[0]}"
    return f"no process; held by {clean(space.files[0])}" if space and space.files else "no process"


def _box(canvas: Canvas, x: float, top: float, height: float, network: Network, lines: Sequence[Line],
         snapshot: Snapshot, letters: dict[tuple[str, int], Tag], named: Names) -> None:  # fmt: skip
    sign = letters["net", network.inode]
    wide = (LEFT if x == LEFT[0] else RIGHT)[1] - x
    canvas.box(x, top, wide, height, PAPER, sign.edge)
    canvas.box(x, top, wide, TITLE - 6, sign.fill, sign.edge)
    canvas.label(x + 10, top + 16, _title(network, letters, named), wide - 110, 12.5, bold=True)
    canvas.label(x + wide - 10, top + 16, str(network.inode), 90, 11, anchor="end", mono=True)
    canvas.label(x + 10, top + 31, _who(network, snapshot, named), wide - 20, 11)
    at = top + TITLE
    spine = 0.0  # where the bridge's line begins
    for line in lines:
        inset = x + (34 if line.port else 10)
        if line.what == "link" and line.link is not None:
            # The kernel draws lots for it: a lesson's picture must be the same in every run.
            mac = "" if named else f"{line.link.mac}, "
            if line.link.kind == "bridge":
                spine = at + NAME - 4
            canvas.box(inset, at + 2, x + wide - inset - 8, NAME - 4, GREY, DEEP_RED if not line.link.up else FAINT,
                       dashed=not line.link.up, title=f"{mac}mtu {line.link.mtu}")  # fmt: skip
            half = (x + wide - inset - 8) / 2
            canvas.label(inset + 8, at + 16, line.words, half - 22, 12, bold=True, mono=True)
            canvas.label(x + wide - 16, at + 16, line.aside, half + 4, 11, anchor="end")
            if line.port:
                canvas.line(x + 22, spine, x + 22, at + NAME / 2, DEEP_BLUE, 1.5)
                canvas.line(x + 22, at + NAME / 2, inset, at + NAME / 2, DEEP_BLUE, 1.5)
        elif line.what == "count":
            canvas.label(inset + (22 if line.link else 0), at + 12, line.words, x + wide - inset - 32, 11,
                         DEEP_GREEN, bold=True)  # fmt: skip
        elif line.what == "address":
            canvas.label(inset + 22, at + 12, line.words, x + wide - inset - 32, 11, mono=True)
        else:
            colour = DEEP_ORANGE if line.what == "route" else FAINT
            words = f"→ {line.words}" if line.what == "route" else line.words
            canvas.label(x + 10, at + 13, words, wide - 20, 11, colour, mono=line.what == "route")
        at += _height(line)


def _wires(canvas: Canvas, networks: Sequence[Network], ends: dict[tuple[int, int], End]) -> None:
    pairs: dict[tuple[tuple[int, int], tuple[int, int]], None] = {}
    known = Snapshot({}, {}, {}, {}, {network.inode: network for network in networks})
    for network in networks:
        for link in _by_bridge(network.links):
            found = _other(link, network, known)
            if found is None:
                continue
            here, there = (network.inode, link.index), (found[0], found[1].index)
            if here in ends and there in ends and (there, here) not in pairs:
                pairs[here, there] = None
    for points in lanes([Wire(ends[here], ends[there]) for here, there in pairs]):
        for (x1, y1), (x2, y2) in points:
            canvas.line(x1, y1, x2, y2, DEEP_BLUE, 2)


def _said(network: Network, lines: Sequence[Line], snapshot: Snapshot,
          letters: dict[tuple[str, int], Tag], named: Names) -> Iterator[str]:  # fmt: skip
    yield f"{_title(network, letters, named)} {network.inode}: {_who(network, snapshot, named)}"
    for line in lines:
        pad = "    " if line.port else "  "
        words = f"{line.words}  {line.aside}".rstrip() if line.what == "link" else line.words
        yield pad + {"link": "", "address": "  ", "count": "  ", "route": "route ", "note": ""}[line.what] + words
