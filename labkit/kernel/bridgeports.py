"""Floor 1: the ports of a bridge, and what each may do: turn frames round, reach its neighbours, learn.

Owns: the flags of a port, one attribute each, and reading them back.

Read: bridge(8), "bridge link set"; include/uapi/linux/if_link.h, IFLA_BRPORT_*.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from labkit.kernel.links import IFINFO, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MASTER, RTM_GETLINK, RTM_NEWLINK, message, text
from labkit.kernel.netlink import NLM_F_DUMP, Netlink, attribute, attributes

IFLA_PROTINFO = 12
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 4, 5
IFLA_BRPORT_STATE, IFLA_BRPORT_MODE, IFLA_BRPORT_GUARD, IFLA_BRPORT_LEARNING = 1, 4, 5, 8
IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_ISOLATED = 9, 33

FLAGS = {
    "hairpin": IFLA_BRPORT_MODE,  # a frame may leave by the port by which it came
    "isolated": IFLA_BRPORT_ISOLATED,  # frames pass to and from ports that are not isolated alone
    "guard": IFLA_BRPORT_GUARD,  # spanning tree's own messages are refused here
    "learning": IFLA_BRPORT_LEARNING,  # who sends here is remembered
    "flood": IFLA_BRPORT_UNICAST_FLOOD,  # frames for somebody unknown go out here too
}
STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


class Port(NamedTuple):
    """One port of a bridge."""

    ifindex: int
    name: str
    bridge: int  # its index
    state: str
    flags: frozenset[str]  # those of FLAGS that are on


def set_port(netlink: Netlink, index: int, **flags: bool) -> None:
    """bridge link set dev DEVICE FLAG on|off, for some of FLAGS. Raises KeyError for one that is not there."""
    data = b"".join(attribute(FLAGS[name], bytes([on])) for name, on in flags.items())
    info = attribute(IFLA_INFO_SLAVE_KIND, "bridge") + attribute(IFLA_INFO_SLAVE_DATA, data)
    words = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in flags.items())
    netlink.request(RTM_NEWLINK, message(index) + attribute(IFLA_LINKINFO, info), what=f"port {index}: {words}")


def set_hairpin(netlink: Netlink, index: int) -> None:
    """A frame may leave by the port of the bridge by which it came."""
    set_port(netlink, index, hairpin=True)


def ports(netlink: Netlink) -> list[Port]:
    """The ports of every bridge of this namespace, as `bridge -d link` lists them."""
    # Asked in the bridge's own family, the kernel answers for ports alone, each with its flags.
    request = IFINFO.pack(socket.AF_BRIDGE, 0, 0, 0, 0)
    found = []
    for answer in netlink.request(RTM_GETLINK, request, flags=NLM_F_DUMP, what="list ports of bridges"):
        _, _, index, _, _ = IFINFO.unpack_from(answer.payload)
        values = dict(attributes(answer.payload[IFINFO.size :]))
        port = dict(attributes(values.get(IFLA_PROTINFO, b"")))
        if IFLA_BRPORT_STATE not in port:
            continue  # the bridge itself is in the list too
        on = frozenset(name for name, kind in FLAGS.items() if port.get(kind, b"\0") != b"\0")
        bridge = int.from_bytes(values.get(IFLA_MASTER, b""), "little")
        state = STATES[port[IFLA_BRPORT_STATE][0]]
        found.append(Port(index, text(values.get(IFLA_IFNAME, b"")), bridge, state, on))
    return found
