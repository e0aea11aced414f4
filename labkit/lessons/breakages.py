"""Top floor: seven ways in which a container's network breaks, and the questions that tell them apart.

Owns: each breakage as a change that somebody makes by accident, the way back, and what
works meanwhile.  Notebook 06 shows the symptoms; the exercise `mend` has them mended.

Read: labkit/lessons/netground.py for the pieces; arp(7), ip-link(8) on mtu, resolv.conf(5),
docs.docker.com on packet filtering and the chain DOCKER-USER.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from labkit.lessons import netground
from labkit.lessons.child import Child

PORT = 8080  # of the machine; it leads to port 80 of the container
NAME = "world"  # what the name server knows the world as
LARGE = 3000  # bytes: more than one packet of the usual size holds


class Place(NamedTuple):
    """A machine with two containers on a bridge, and the world: stage children, and the beginnings of addresses."""

    machine: Child
    home: Child  # the container that is asked about: its number is 2, the machine's is 1
    neighbour: Child  # number 3
    world: Child
    bridge: str
    net: str  # 172.30.0
    outer: str  # 203.0.113: the world's number is 1, the machine's is 2


def forwarding_off(place: Place) -> None:
    """The machine forwards nothing"""
    Child.do(place.machine, netground.forward, False)


def no_route(place: Place) -> None:
    """A missing route"""
    Child.do(place.home, netground.ip, "route del default")


def mtu_mismatch(place: Place) -> None:
    """An MTU of 9000 at one end of a cable"""
    Child.do(place.home, netground.ip, "link set eth0 mtu 9000")


def stale_rule(place: Place) -> None:
    """A rule of a container that is gone"""
    rule = f'fib daddr type local tcp dport {PORT} dnat to {place.net}.77:80 comment "of a container that is gone"'
    hook = "type nat hook prerouting priority dstnat - 1"
    Child.do(place.machine, netground.nft, f"table ip crashed {{\n chain prerouting {{\n {hook}\n {rule}\n }}\n}}")


def duplicate_address(place: Place) -> None:
    """The same address given to two"""
    Child.do(place.machine, netground.ip, f"neigh flush dev {place.bridge}")
    Child.do(place.neighbour, netground.ip, f"addr add {place.net}.2/24 dev eth0")
    # Whoever speaks is remembered: from now on the machine sends what is for number 2 to number 3.
    Child.do(place.neighbour, netground.reaches, f"{place.net}.1", 56, 0.3, 1, f"{place.net}.2")


def dead_name_server(place: Place) -> None:
    """A name server where nobody is"""
    Child.do(place.home, netground.resolver, f"{place.net}.99")


def docker_drops(place: Place) -> None:
    """A dockerd that drops what is forwarded"""
    filters = """
    table ip filter {
        chain DOCKER-USER { }
        chain FORWARD {
            type filter hook forward priority filter; policy drop;
            jump DOCKER-USER
            oifname "docker0" ct state related,established accept
            iifname "docker0" accept
        }
    }
    """
    Child.do(place.machine, netground.nft, filters)


Breakage = Callable[[Place], None]
BREAKAGES: dict[str, Breakage] = {
    str(one.__doc__): one
    for one in (forwarding_off, no_route, mtu_mismatch, stale_rule, duplicate_address, dead_name_server, docker_drops)
}


def unbreak(place: Place) -> None:
    """Everything as it was before any of them; the rules of others stay."""
    Child.do(place.machine, netground.forward, True)
    Child.do(place.home, netground.ip, "link set eth0 mtu 1500", f"route replace default via {place.net}.1")
    Child.do(place.home, netground.resolver, f"{place.net}.1")
    Child.do(place.neighbour, netground.drop_address, f"{place.net}.2/24")
    Child.do(place.machine, netground.ip, f"neigh flush dev {place.bridge}")
    Child.do(place.machine, netground.drop_tables, ["crashed", "filter"])


class Symptoms(NamedTuple):
    """What works; `outside` is asked by the world, all others by the container."""

    neighbour: bool
    gateway: bool
    says: str  # why the world does not answer, in the words of the container's kernel; empty when it does
    large: bool
    name: bool
    outside: bool

    @property
    def world(self) -> bool:
        return not self.says

    @property
    def fine(self) -> bool:
        return all(getattr(self, name) for name in WORDS)


WORDS = {
    "neighbour": "the container does not reach its neighbour",
    "gateway": "the container does not reach the machine",
    "world": "the container does not reach the world",
    "large": f"pings of {LARGE} bytes from the container to the world do not come back",
    "name": f"the container cannot find the address of `{NAME}`",
    "outside": f"the world calls port {PORT} of the machine, and the container does not answer",
}


def symptoms(place: Place, limit: float = 1.0) -> Symptoms:
    """Ask everything; an answer that does not come costs `limit` seconds."""
    # With a duplicate address somebody may answer, and be somebody else.
    outside = place.home.name in Child.do(place.world, netground.fetch, f"{place.outer}.2", PORT, limit)
    return Symptoms(*Child.do(place.home, _from_inside, place.net, place.outer, place.world.name, limit), outside)


def _from_inside(net: str, outer: str, world: str, limit: float) -> tuple[bool, bool, str, bool, bool]:
    """Symptoms but for the last; where nothing comes from the world, nothing large need be tried."""
    neighbour, gateway = (netground.reaches(f"{net}.{number}", limit=limit) for number in (3, 1))
    heard = netground.fetch(f"{outer}.1", 80, limit)
    large = world in heard and netground.reaches(f"{outer}.1", LARGE, limit=limit)
    return neighbour, gateway, "" if world in heard else heard, large, netground.lookup(NAME) == f"{outer}.1"


def settle(place: Place, servers: bool = True) -> None:
    """What the questions need: a way out and a way in, names, and the two servers unless they are there.

    Links and addresses are there already.
    """
    Child.do(place.home, netground.own_resolver)
    for one in (place.home, place.world) if servers else ():
        Child.do(one, netground.serve, 80, one.name)
    Child.do(place.machine, netground.background, "/dev/null", netground.name_server,
             f"{place.net}.1", {NAME: f"{place.outer}.1"})  # fmt: skip
    rules = f"""
    table ip lesson {{
        chain prerouting {{
            type nat hook prerouting priority dstnat
            fib daddr type local tcp dport {PORT} counter dnat to {place.net}.2:80 comment "published"
        }}
        chain postrouting {{
            type nat hook postrouting priority srcnat
            ip saddr {place.net}.0/24 oifname != "{place.bridge}" counter masquerade comment "way out"
        }}
    }}
    """
    Child.do(place.machine, netground.nft, rules)
    Child.do(place.home, netground.resolver, f"{place.net}.1")
    Child.do(place.home, netground.within, 15.0, netground.lookup, NAME)  # a name server needs a moment to start
