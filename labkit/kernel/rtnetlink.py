"""Floor 1: rtnetlink: everything about links, addresses, neighbours and routes under one name.

Owns: nothing itself; it is the table of contents.  labkit.kernel.links has the devices,
labkit.kernel.bridgeports the ports of bridges, labkit.kernel.addresses addresses and
neighbours, labkit.kernel.routes the ways; labkit.kernel.netlink the messages below them all.

Read: rtnetlink(7).
"""

from __future__ import annotations

from labkit.kernel.addresses import (
    Address,
    Neighbour,
    add_address,
    add_neighbour,
    addresses,
    delete_address,
    delete_neighbour,
    neighbours,
)
from labkit.kernel.bridgeports import Port, ports, set_hairpin, set_port
from labkit.kernel.links import (
    Counters,
    Link,
    counters,
    create_bridge,
    create_dummy,
    create_ipvlan,
    create_macvlan,
    create_veth,
    delete_link,
    delete_link_if_there,
    find_link,
    links,
    move,
    namespace_id,
    rename,
    set_alias,
    set_down,
    set_mac,
    set_master,
    set_mtu,
    set_up,
)
from labkit.kernel.routes import Route, add_default_route, add_route, delete_route, destinations, routes

__all__ = [
    "Address",
    "Counters",
    "Link",
    "Neighbour",
    "Port",
    "Route",
    "add_address",
    "add_default_route",
    "add_neighbour",
    "add_route",
    "addresses",
    "counters",
    "create_bridge",
    "create_dummy",
    "create_ipvlan",
    "create_macvlan",
    "create_veth",
    "delete_address",
    "delete_link",
    "delete_link_if_there",
    "delete_neighbour",
    "delete_route",
    "destinations",
    "find_link",
    "links",
    "move",
    "namespace_id",
    "neighbours",
    "ports",
    "rename",
    "routes",
    "set_alias",
    "set_down",
    "set_hairpin",
    "set_mac",
    "set_master",
    "set_mtu",
    "set_port",
    "set_up",
]
