"""Floor 2: the container's end of its network, set up from inside its namespace.

Owns: loopback, the address and the default route.

Read: rtnetlink(7), network_namespaces(7).
"""

from __future__ import annotations

import socket

from labkit.kernel import rtnetlink
from labkit.kernel.netlink import Netlink
from labkit.network.endpoint import Endpoint


def loopback_up() -> None:
    """A new network namespace has a loopback device, but it is down."""
    with Netlink() as netlink:
        rtnetlink.set_up(netlink, socket.if_nametoindex("lo"))


def configure(endpoint: Endpoint) -> None:
    """Everything up, the address on the device, the bridge as the way out."""
    with Netlink() as netlink:
        rtnetlink.set_up(netlink, socket.if_nametoindex("lo"))
        index = socket.if_nametoindex(endpoint.name)
        rtnetlink.add_address(netlink, index, endpoint.address, endpoint.prefix)
        rtnetlink.set_up(netlink, index)
        rtnetlink.add_default_route(netlink, endpoint.gateway)
