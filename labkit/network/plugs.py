"""Floor 2: how a container is plugged into a network: one function a driver.

Owns: a veth pair to a bridge of ours, a macvlan or an ipvlan (L2) on a device of the machine;
each is born with its inner end in the container's network namespace.

Read: veth(4); ip-link(8) on macvlan and ipvlan; Documentation/networking/ipvlan.rst.
"""

from __future__ import annotations

import socket

from labkit.errors import InUse, NotFound
from labkit.kernel import rtnetlink
from labkit.kernel.ledger import Ledger
from labkit.kernel.netlink import Netlink
from labkit.network import docker_user, rules
from labkit.network.plan import Member, Plan

MARK = "labkit"  # the alias by which a bridge of ours is known again


def _plug_bridge(netlink: Netlink, pid: int, ledger: Ledger, here: Plan, member: Member) -> None:
    switch = rtnetlink.find_link(netlink, here.interface)
    if switch is None or switch.kind != "bridge" or switch.alias != MARK:
        raise foreign(here.interface)
    own = Ledger(f"network-{here.name}")
    # dockerd may have been started after our network was made.
    beside = not here.internal and rtnetlink.find_link(netlink, "docker0") is not None
    if beside and not docker_user.is_let_through(own):
        docker_user.let_through(here.interface, rules.tables(), own)
    if here.kept:
        from labkit.network import dns_service

        dns_service.ensure(here, own)
    ledger.record("link", name=member.host_interface)
    mac = bytes.fromhex(member.mac.replace(":", ""))
    rtnetlink.create_veth(netlink, member.host_interface, member.device, pid, mac, switch.ifindex)
    # Where br_netfilter is loaded, DNAT happens inside the bridge: without this a container
    # could not reach its own published port, for its frames may not turn round.
    rtnetlink.set_hairpin(netlink, socket.if_nametoindex(member.host_interface))


def _plug_macvlan(netlink: Netlink, pid: int, ledger: Ledger, here: Plan, member: Member) -> None:
    mac = bytes.fromhex(member.mac.replace(":", ""))
    rtnetlink.create_macvlan(netlink, member.device, parent(netlink, here).ifindex, pid, mac)


def _plug_ipvlan(netlink: Netlink, pid: int, ledger: Ledger, here: Plan, member: Member) -> None:
    rtnetlink.create_ipvlan(netlink, member.device, parent(netlink, here).ifindex, pid)


# The devices of the last two live in the container's namespace, and go with it.
PLUG = {"bridge": _plug_bridge, "macvlan": _plug_macvlan, "ipvlan": _plug_ipvlan}


def parent(netlink: Netlink, here: Plan) -> rtnetlink.Link:
    """The machine's device under a macvlan or ipvlan network. Raises NotFound."""
    found = rtnetlink.find_link(netlink, here.parent)
    if found is None:
        names = ", ".join(link.name for link in rtnetlink.links(netlink) if link.name != "lo")
        raise NotFound(
            f"there is no device {here.parent!r} for network {here.name}",
            why=f"devices of this machine: {names or 'none'}",
            next="labkit network create -d macvlan -o parent=DEVICE",
        )
    return found


def foreign(name: str) -> InUse:
    """The error for a device that has a name of ours."""
    return InUse(
        f"there is a network device {name} that labkit did not make",
        why="its name is the one that labkit's network needs, and no entry in this labkit's ledger owns it",
        next=f"ip link show {name}; remove or rename it, if it is yours",
    )
