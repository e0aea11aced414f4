"""Top floor: the check of publish.

Owns: a client in the world, a container, a passer-by whose packets only cross the machine; who reaches whom.
Read: nft(8) on dnat and fib, ip-sysctl.rst on route_localnet.
"""

from __future__ import annotations

from collections.abc import Callable

from labkit.lessons import netground
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong


def check(publish: Callable[[int, str, int], None], lab: Ground) -> None:
    """The container says who has called it; a second server behind the machine must not be cut off."""
    net, outer = f"172.{lab.number(16, 31)}.{lab.number(0, 255)}", f"198.51.{lab.number(0, 255)}"
    word, passed, port, inner = lab.token(), lab.token(), lab.number(2000, 30000), lab.number(30001, 60000)
    machine, home, other, world = (lab.child(name) for name in ("machine", "container", "other", "world"))
    for one in (home, other, world):
        Child.do(one, netground.own_network)
    Child.do(machine, machine_of, net, outer, home.pid, other.pid, world.pid)
    for number, one in ((2, home), (3, other)):
        Child.do(one, netground.ip, f"addr add {net}.{number}/24 dev eth0", "link set eth0 up",
                 f"route add default via {net}.1")  # fmt: skip
    Child.do(home, netground.serve, inner, word)
    Child.do(other, netground.serve, port, passed)
    Child.do(world, netground.ip, f"addr add {outer}.1/24 dev eth0", "link set eth0 up",
             f"route add {net}.0/24 via {outer}.2")  # fmt: skip
    machine.do(publish, port, f"{net}.2", inner, limit=10)
    seen = Child.do(world, netground.fetch, f"{outer}.2", port)
    if not seen.startswith(word):
        raise Wrong(f"somebody outside calls port {port} of the machine, and gets: {seen}")
    own = Child.do(machine, netground.fetch, "127.0.0.1", port)
    if not own.startswith(word):
        raise Wrong(f"the machine itself calls 127.0.0.1:{port}, and gets: {own}")
    if (who := seen.split()[1]) != f"{outer}.1":
        raise Wrong(f"{outer}.1 called from outside, but the container was called by {who}: "
                    "it cannot tell its callers")  # fmt: skip
    through = Child.do(world, netground.fetch, f"{net}.3", port)
    if not through.startswith(passed):
        raise Wrong(f"{outer}.1 calls port {port} of {net}.3, which is not the machine, and is led to {net}.2: "
                    "a packet that only passes through is none of the rule's business")  # fmt: skip


def machine_of(net: str, outer: str, home: int, other: int, world: int) -> None:
    """On the machine: a bridge with two containers, an uplink, and everything forwarded."""
    netground.ip(
        "link add br0 type bridge", f"addr add {net}.1/24 dev br0", "link set br0 up",
        f"link add v1 type veth peer name eth0 netns {home}", "link set v1 master br0", "link set v1 up",
        f"link add v2 type veth peer name eth0 netns {other}", "link set v2 master br0", "link set v2 up",
        f"link add uplink type veth peer name eth0 netns {world}", f"addr add {outer}.2/24 dev uplink",
        "link set uplink up", "link set lo up",
    )  # fmt: skip
    netground.forward(True)
