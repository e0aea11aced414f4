"""Top floor: the check of masquerade.

Owns: a machine with a bridge and a second address, a container and a world; whose address the world sees.
Read: nft(8) on masquerade, Documentation/networking/ip-sysctl.rst on ip_forward.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from labkit.lessons import netground
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong


def check(way_out: Callable[[str, str], None], lab: Ground) -> None:
    """The world is a server that says who has called."""
    bridge, word, port = f"br{lab.token(6)}", lab.token(), lab.number(2000, 60000)
    net, outer = f"172.{lab.number(16, 31)}.{lab.number(0, 255)}", f"198.51.{lab.number(0, 255)}"
    machine, home, world = (lab.child(name) for name in ("machine", "container", "world"))
    for one in (home, world):
        Child.do(one, netground.own_network)
    Child.do(machine, machine_of, bridge, net, outer, home.pid, world.pid)
    Child.do(home, netground.ip, f"addr add {net}.2/24 dev eth0", "link set eth0 up",
             f"route add default via {net}.1")  # fmt: skip
    # The world knows ways to the machine's second address, and none to the containers.
    Child.do(world, netground.ip, f"addr add {outer}.1/24 dev eth0", "link set eth0 up",
             f"route add 192.0.2.0/24 via {outer}.2")  # fmt: skip
    Child.do(world, netground.serve, port, word)
    machine.do(way_out, bridge, f"{net}.0/24")
    if Child.do(machine, forwarding) != "1":
        raise Wrong("the machine still forwards nothing: /proc/sys/net/ipv4/ip_forward is 0")
    seen = Child.do(home, netground.fetch, f"{outer}.1", port)
    if not seen.startswith(word):
        raise Wrong(f"a container calls the world, and hears: {seen}. The rules of the machine now:\n"
                    f"{Child.do(machine, netground.ruleset).rstrip() or '(none)'}")  # fmt: skip
    if (who := seen.split()[1]) != f"{outer}.2":
        raise Wrong(f"the world was called by {who}; the machine's address there is {outer}.2")
    own = Child.do(machine, call_from, "192.0.2.7", f"{outer}.1", port)
    if not own.endswith(" 192.0.2.7"):
        raise Wrong(f"the rule is not bounded: the machine calls the world from its second address, 192.0.2.7, "
                    f"which is not of the subnet, and the world sees {own.split()[-1]}")  # fmt: skip
    if "of somebody else" not in Child.do(machine, netground.ruleset):
        raise Wrong("a rule of somebody else, which was there before, is gone")


def machine_of(bridge: str, net: str, outer: str, home: int, world: int) -> None:
    """On the machine: a bridge with a container, an uplink, an address beside, and nothing forwarded."""
    netground.ip(
        f"link add {bridge} type bridge", f"addr add {net}.1/24 dev {bridge}", f"link set {bridge} up",
        f"link add v1 type veth peer name eth0 netns {home}", f"link set v1 master {bridge}", "link set v1 up",
        f"link add uplink type veth peer name eth0 netns {world}", f"addr add {outer}.2/24 dev uplink",
        "addr add 192.0.2.7/32 dev uplink", "link set uplink up", "link set lo up",
    )  # fmt: skip
    netground.forward(False)
    netground.nft('table ip guard {\n chain guard {\n counter comment "of somebody else"\n }\n}')


def forwarding() -> str:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()


def call_from(own: str, address: str, port: int) -> str:
    """What a server hears from a caller that has chosen its address."""
    try:
        with socket.create_connection((address, port), 2, source_address=(own, 0)) as line:
            return line.recv(1000).decode()
    except OSError as error:
        return f"nothing ({error})"
