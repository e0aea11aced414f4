"""Top floor: the check of mend.

Owns: the seven breakages in a random order on one machine, and whether mending takes more away than it should.
Read: labkit/lessons/breakages.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from labkit.lessons import breakages, netground
from labkit.lessons.breakages import BREAKAGES, WORDS, Place
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

FOREIGN = "of somebody else"


def check(mend: Callable[[int, str, str, str, list[int]], None], lab: Ground) -> None:
    """After each call the container, the world and the machine's rules are asked."""
    place = build(lab)
    breakages.settle(place)
    breakages.unbreak(place)
    order = list(BREAKAGES)
    random.Random(lab.token()).shuffle(order)
    lab.until(lambda: breakages.symptoms(place).fine, 20, "the lesson's own network does not work")
    for name in order:
        cause = f"broken by: {name[0].lower()}{name[1:]}"
        BREAKAGES[name](place)
        place.machine.do(mend, place.home.pid, f"{place.net}.2/24", f"{place.net}.1", place.bridge,
                         [place.neighbour.pid], limit=60)  # fmt: skip
        # Asked first: a name that is written there and not in the container's file is both, and only one is the cause.
        if "# the machine's" not in Child.do(place.machine, netground.RESOLV_CONF.read_text):
            raise Wrong("the machine's own resolv.conf has been changed; the container's is below /proc/PID/root")
        seen = breakages.symptoms(place)
        if broken := [words for key, words in WORDS.items() if not getattr(seen, key)]:
            raise Wrong(f"{cause}. After mend(), still: {'; '.join(broken)}")
        rules = Child.do(place.machine, netground.ruleset)
        if FOREIGN not in rules:
            raise Wrong(f"{cause}. It works again, but a rule of somebody else is gone from the machine")
        if name == breakages.docker_drops.__doc__ and "policy drop" not in rules:
            raise Wrong(
                "the policy of the chain FORWARD is drop no longer: the machine now forwards anything for anybody"
            )
        breakages.unbreak(place)


def build(lab: Ground) -> Place:
    """The links and addresses; the fence is the machine."""
    bridge, net, outer = f"br{lab.token(6)}", f"172.{lab.number(16, 31)}.{lab.number(0, 255)}", "203.0.113"
    machine, home, neighbour, world = (lab.child(name) for name in ("machine", "container", "neighbour", "world"))
    for one in (home, neighbour, world):
        Child.do(one, netground.own_network)
    Child.do(
        machine, netground.ip, "link set lo up",
        f"link add {bridge} type bridge", f"addr add {net}.1/24 dev {bridge}", f"link set {bridge} up",
        f"link add v1 type veth peer name eth0 netns {home.pid}", f"link set v1 master {bridge}", "link set v1 up",
        f"link add v2 type veth peer name eth0 netns {neighbour.pid}", f"link set v2 master {bridge}", "link set v2 up",
        f"link add uplink type veth peer name eth0 netns {world.pid}", f"addr add {outer}.2/24 dev uplink",
        "link set uplink up",
    )  # fmt: skip
    for number, one in ((2, home), (3, neighbour)):
        Child.do(one, netground.ip, f"addr add {net}.{number}/24 dev eth0", "link set eth0 up",
                 f"route add default via {net}.1")  # fmt: skip
    Child.do(world, netground.ip, f"addr add {outer}.1/24 dev eth0", "link set eth0 up")
    Child.do(machine, netground.own_resolver, "# the machine's\n")
    Child.do(machine, netground.nft, f'table ip guard {{\n chain guard {{\n counter comment "{FOREIGN}"\n }}\n}}')
    return Place(machine, home, neighbour, world, bridge, net, outer)
