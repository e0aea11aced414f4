"""Drawing floor: the cables between a container, the bridge and the world.

Owns: one row of boxes: device inside, its other end, the bridge, the way out; published
ports above the way in.

Read: veth(4), bridge(8), nft(8) on NAT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from labkit.draw.svg import BLUE, DEEP_BLUE, DEEP_GREEN, DEEP_ORANGE, FAINT, GREEN, GREY, ORANGE, Canvas, Picture


class Wire(NamedTuple):
    """One container's cable."""

    container: str
    inside: str  # its device
    address: str  # of that device
    outside: str  # the other end of the veth pair
    bridge: str
    gateway: str  # the bridge's own address
    published: Sequence[str] = ()  # such as 8080 -> 80


def wiring(wires: Sequence[Wire], machine: str = "the lab's machine") -> Picture:
    """The wiring of some containers, one row each."""
    height = 96 + 92 * len(wires)
    canvas = Canvas(820, height, "network cables of containers")
    canvas.box(236, 34, 386, height - 50, "#ffffff", FAINT)
    canvas.text(250, 52, machine, 12, FAINT)
    canvas.box(682, 70, 122, height - 110, ORANGE, DEEP_ORANGE)
    canvas.text(743, 70 + (height - 110) / 2, "other networks", 12, anchor="middle")
    lines = []
    middle = 70 + (height - 110) / 2
    canvas.box(450, 70, 156, height - 110, GREY, FAINT)
    if wires:
        canvas.text(528, middle - 4, f"bridge {wires[0].bridge}", 12.5, anchor="middle", bold=True)
        canvas.text(528, middle + 14, wires[0].gateway, 11.5, anchor="middle", mono=True)
    canvas.line(606, middle, 680, middle, arrow=True)
    canvas.text(651, middle - 8, "NAT", 11, DEEP_ORANGE, anchor="middle", bold=True)
    for number, wire in enumerate(wires):
        top = 78 + 92 * number
        canvas.box(16, top, 176, 66, GREEN, DEEP_GREEN, dashed=True)
        canvas.text(28, top + 18, wire.container, 12, bold=True)
        canvas.text(28, top + 38, wire.inside, 12, mono=True)
        canvas.text(28, top + 55, wire.address, 11.5, mono=True)
        canvas.box(252, top + 16, 150, 34, BLUE, DEEP_BLUE)
        canvas.text(327, top + 37, wire.outside, 12, anchor="middle", mono=True)
        canvas.line(192, top + 33, 252, top + 33, DEEP_BLUE, 3)
        canvas.line(402, top + 33, 450, top + 33, DEEP_BLUE, 3)
        canvas.text(214, top + 26, "veth", 9.5, DEEP_BLUE, anchor="middle")
        for place, port in enumerate(wire.published):
            canvas.text(256, top + 64 + 12 * place, f"published {port}", 10.5, DEEP_ORANGE)
        lines.append(f"{wire.container}: {wire.inside} {wire.address} == veth == {wire.outside}"
                     f" -- bridge {wire.bridge} {wire.gateway} -- NAT -- other networks")  # fmt: skip
        lines += [f"{' ' * len(wire.container)}  published {port}" for port in wire.published]
    return canvas.picture("\n".join(lines))
