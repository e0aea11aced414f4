"""Top floor: the check of cable.

Owns: two containers on one bridge, what netlink says of their cables, and a word sent from one to the other.
Read: veth(4), rtnetlink(7).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from labkit.kernel import rtnetlink
from labkit.kernel.netlink import Netlink
from labkit.lessons import netground
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

Links = dict[str, rtnetlink.Link]  # by name


def links() -> Links:
    """{name: device} of the network that asks."""
    with Netlink() as netlink:
        return {link.name: link for link in rtnetlink.links(netlink)}


def check(cable: Callable[[str, str, str, int], None], lab: Ground) -> None:
    """The fence is the machine; both ends are read by netlink, each from its own side."""
    machine = lab.child("machine")
    bridge, net = f"br{lab.token(6)}", lab.number(16, 31)
    homes = [lab.child(f"container-{number}") for number in (1, 2)]
    for number, home in enumerate(homes, 2):
        Child.do(home, netground.own_network)
        outside, inside = f"v{lab.token(7)}", f"in{lab.token(5)}"
        try:
            machine.do(cable, bridge, outside, inside, home.pid)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise Wrong("the kernel refused: Operation not supported. A device can be a port of a bridge of its own "
                        "network only; has IFLA_NET_NS_PID moved the wrong end?") from error  # fmt: skip
        look(Child.do(machine, links), Child.do(home, links), bridge, outside, inside)
        Child.do(home, netground.ip, f"addr add 172.{net}.0.{number}/16 dev {inside}", f"link set {inside} up")
    word, port = lab.token(), lab.number(2000, 60000)
    Child.do(homes[0], netground.serve, port, word)
    heard = Child.do(homes[1], netground.fetch, f"172.{net}.0.2", port)
    if not heard.startswith(word):
        raise Wrong(f"both cables are there, but a word sent from one container did not reach the other: {heard}")


def look(here: Links, there: Links, bridge: str, outside: str, inside: str) -> None:
    """Raise Wrong with the first thing that netlink says otherwise."""
    if bridge not in here:
        raise Wrong(f"the machine has no device called {bridge}; it has {', '.join(sorted(here))}")
    if here[bridge].kind != "bridge":
        raise Wrong(f"{bridge} is a {here[bridge].kind or 'plain device'}, and no bridge")
    if outside not in here:
        gone = f"; it is in the container: {outside} has moved, and {inside} should have" if outside in there else ""
        raise Wrong(f"the machine has no device called {outside}{gone}")
    if inside not in there:
        where = ", but the machine has: nobody has moved it" if inside in here else ""
        raise Wrong(f"the container has no device called {inside}{where}")
    one, other = here[outside], there[inside]
    if (one.kind, other.kind) != ("veth", "veth") or one.peer != other.ifindex:
        raise Wrong(f"{outside} (a {one.kind or 'plain device'}) and {inside} are not the two ends of one veth pair")
    if one.master != here[bridge].ifindex:
        raise Wrong(f"{outside} is not a port of {bridge}: its IFLA_MASTER is {one.master}, "
                    f"and the bridge has the index {here[bridge].ifindex}")  # fmt: skip
    for name in (bridge, outside):
        if not here[name].up:
            raise Wrong(f"{name} is down: IFF_UP is missing among its flags")
