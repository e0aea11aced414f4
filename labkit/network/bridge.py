"""Floor 2: a network, and a container's place on it: a switch in the kernel, and a cable to each.

Owns: making and dissolving a network's bridge, IP forwarding, and giving a container addresses;
its cable is labkit.network.plugs'.  What a network holds belongs to the ledger network-NAME, what
all of them share (the table, forwarding) to the ledger `networks`; both go with the last that
needs them.

Read: bridge(8), veth(4); Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import InUse, LabError, NotFound, explain
from labkit.kernel import process, rtnetlink, sysctls
from labkit.kernel.ledger import Ledger
from labkit.kernel.netlink import Netlink
from labkit.network import docker_user, plan, plugs, rules, subnets
from labkit.network.endpoint import Endpoint
from labkit.network.plan import Member, Plan
from labkit.network.plugs import MARK
from labkit.network.rules import FAMILY, TABLE
from labkit.network.subnets import Subnet

DEFAULT = "labkit0"
SHARED = "networks"  # the ledger of what the networks share
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
FORWARDING6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")


# --- a container comes, and goes ---------------------------------------------------------


def attach(
    container: str,
    pid: int,
    ledger: Ledger,
    name: str = DEFAULT,
    *,
    label: str = "",
    aliases: Sequence[str] = (),
    address: str = "",
    address6: str = "",
    device: str = "",
) -> Endpoint:
    """Give the process `pid` a place on the network; the default one is made when it is not there.

    label, aliases -- the container's name, and further names, for the name service.
    address, address6 -- those that it wants, instead of the next free ones.
    device -- what its end is called inside, instead of the next eth0, eth1, ...

    Raises NotFound for a network that does not exist; InUse when a foreign device or table has our
    name, or an address is taken; LabError when the kernel refuses.  Nothing of this container is
    left on the network then.
    """
    with plan.locked(), Netlink() as netlink:
        here = plan.load(name)
        if container in here.containers:
            raise InUse(
                f"the container is on network {name} already",
                why=f"it has {here.containers[container].v4} there",
                next=f"labkit network disconnect {name} CONTAINER",
            )
        try:
            whole = here.driver != "bridge" or rtnetlink.find_link(netlink, here.interface) is not None
            if not here.subnet and name != DEFAULT:
                raise unknown(name)
            if not here.subnet or not whole:
                make(netlink, here)
            member = _seat(container, here, label, aliases, address, address6)
            member = member._replace(device=device or member.device)
            return _connect(netlink, container, pid, ledger, here, member)
        except BaseException:
            _leave(container, ledger, here)
            raise


def _seat(container: str, here: Plan, label: str, aliases: Sequence[str], address: str, address6: str) -> Member:
    """Addresses and devices for one more container."""
    seats = {one.device for other in plan.networks_of(container) for one in [other.containers[container]]}
    number = next(number for number in range(100) if f"eth{number}" not in seats)
    v4 = _address(here, here.subnet, here.gateway, address, "--ip")
    v6 = _address(here, here.subnet6, here.gateway6, address6, "--ip6")
    cable = f"lk{container[:10]}{number or ''}" if here.driver == "bridge" else ""
    return Member(label, tuple(aliases), v4, v6, f"eth{number}", cable, _mac(v4).hex(":"))


def _mac(v4: str) -> bytes:
    return b"\x02\x42" + socket.inet_aton(v4)  # locally administered, and telling its address


def _address(here: Plan, text: str, gateway: str, asked: str, option: str) -> str:
    if not text:
        if asked:
            raise LabError(f"{option} {asked}: network {here.name} has no IPv6", next="labkit network create --ipv6")
        return ""
    subnet = subnets.parse(text)
    holders = {gateway: "the gateway"}
    for key, one in here.containers.items():
        holders[one.v6 if subnet.family == socket.AF_INET6 else one.v4] = f"container {one.name or key[:12]}"
    if asked:
        return subnets.wanted(subnet, asked, holders, option)
    return subnets.next_address(subnet, holders, here.name)


def _connect(netlink: Netlink, container: str, pid: int, ledger: Ledger, here: Plan, member: Member) -> Endpoint:
    # A container has one way out: by the first network that leads anywhere.
    way = not here.internal and all(other.internal for other in plan.networks_of(container))
    endpoint = Endpoint(
        here.name,
        member.host_interface,
        member.v4,
        subnets.parse(here.subnet).prefix,
        here.gateway if way else "",
        member.mac,
        member.device,
        member.v6,
        subnets.parse(here.subnet6).prefix if member.v6 else 0,
        here.gateway6 if way and member.v6 else "",
    )
    here.containers[container] = member
    here.save()
    try:
        plugs.PLUG[here.driver](netlink, pid, ledger, here, member)
    except OSError as error:
        gone = not Path(f"/proc/{pid}").exists()
        explain(error, f"cannot connect the container to {here.name}", why="its process has ended" if gone else "")
    return endpoint


def detach(container: str, ledger: Ledger, name: str = DEFAULT) -> None:
    """Take the cable out and free the address; with the last container the default network goes too."""
    with plan.locked():
        _leave(container, ledger, plan.load(name))


def detach_all(container: str, ledger: Ledger) -> None:
    """The same on every network that the container is on."""
    for one in plan.networks_of(container):
        detach(container, ledger, one.name)


def _leave(container: str, ledger: Ledger, here: Plan) -> None:
    member = here.containers.pop(container, None)
    if member is not None:
        for entry in ledger.entries():
            if entry.kind == "link" and entry.fields["name"] == member.host_interface:
                ledger.release(entry)
    if here.subnet and (here.containers or here.kept):
        here.save()
    else:
        dissolve(here)


# --- a network comes, and goes -----------------------------------------------------------


def make(netlink: Netlink, here: Plan) -> None:
    """The device, its addresses, the rules; with the lock held.  Each is in a ledger before it exists.

    The plan is saved last: as long as it is not there, the network is not whole.
    Raises LabError; InUse for a foreign device, table or subnet.
    """
    own, shared = Ledger(f"network-{here.name}"), Ledger(SHARED)
    own.release_all()  # what a killed process left half made
    others = [other for other in plan.load_all() if other.name != here.name]
    first = here.driver == "bridge" and not any(other.driver == "bridge" for other in others)
    if first:
        shared.release_all()
    there = rules.tables() if here.driver == "bridge" else set()
    # Before anything is written down: what stands in the ledger is removed by a reset.
    if here.driver == "bridge" and rtnetlink.find_link(netlink, here.interface) is not None:
        raise plugs.foreign(here.interface)
    if first:
        rules.refuse_foreign(there)
    if not here.subnet:
        here.subnet = str(subnets.choose(routed(netlink), planned(others).values()))
    here.gateway = here.gateway or subnets.parse(here.subnet).address(1)
    if here.driver == "bridge":
        _make_bridge(netlink, here, own)
        _forward(shared, here)
        if first:
            shared.record("nft_table", family=FAMILY, name=TABLE)
        rules.write([*others, here], new=first)
        if not here.internal:
            docker_user.let_through(here.interface, there, own)
    here.save()


def _make_bridge(netlink: Netlink, here: Plan, own: Ledger) -> None:
    own.record("link", name=here.interface)
    try:
        # A MAC that stays: a bridge of its own would change it with its ports, under the neighbours' feet.
        rtnetlink.create_bridge(netlink, here.interface, _mac(here.gateway))
        index = socket.if_nametoindex(here.interface)
        rtnetlink.set_alias(netlink, index, MARK)
        for text, gateway in ((here.subnet, here.gateway), (here.subnet6, here.gateway6)):
            if text:
                rtnetlink.add_address(netlink, index, gateway, subnets.parse(text).prefix)
        rtnetlink.set_up(netlink, index)
    except OSError as error:
        explain(error, f"cannot make the bridge {here.interface}")


def _forward(shared: Ledger, here: Plan) -> None:
    """Let the machine be a router, for the families that the network has."""
    sysctls.switch(shared, FORWARDING, "1")
    if not here.subnet6:
        return
    if not FORWARDING6.exists():
        raise LabError("this kernel has no IPv6", next=f"network {here.name} without --ipv6")
    # A router does not listen to other routers by itself: the machine would lose its own way out.
    for file in sorted(FORWARDING6.parents[1].glob("*/accept_ra")):
        if file.parent.name not in ("all", "default", "lo") and file.read_text().strip() == "1":
            sysctls.switch(shared, file, "2")
    sysctls.switch(shared, FORWARDING6, "1")


def dissolve(here: Plan) -> None:
    """The network's device and rules go, and with the last bridge what all of them shared; lock held."""
    own = Ledger(f"network-{here.name}")
    ended = [entry.fields for entry in own.entries() if entry.kind == "process"]
    own.release_all()
    for fields in ended:  # until the name server has died its port is taken, and the next network may want it
        process.await_end(int(fields["pid"]), int(fields["start"]))
    here.remove()
    others = [other for other in plan.load_all() if other.driver == "bridge"]
    if not others:
        Ledger(SHARED).release_all()
    elif here.subnet and here.driver == "bridge":
        rules.write(others, new=False)


def reset() -> None:
    """Forget every network; its resources were in ledgers, which `labkit reset` has released.

    Goes on past one that cannot be given back, which is kept, and raises its LabError at the end.
    """
    if not plan.folder().is_dir():
        return
    failures: list[LabError] = []
    with plan.locked():
        for one in plan.load_all():
            try:
                Ledger(f"network-{one.name}").release_all()
                one.remove()
            except LabError as error:
                failures.append(error)
        Ledger(SHARED).release_all()
    if failures:
        raise failures[0]


def subnet(name: str = DEFAULT) -> str | None:
    """The network's addresses, such as 172.30.0.0/24; None when it does not exist now."""
    return plan.load(name).subnet or None


def routed(netlink: Netlink, family: socket.AddressFamily = socket.AF_INET) -> list[Subnet]:
    """The networks that this machine has a way to, the default route left out."""
    return [
        Subnet(family, int.from_bytes(socket.inet_pton(family, text), "big"), prefix)
        for text, prefix in rtnetlink.destinations(netlink, family)
        if prefix
    ]


def planned(others: Sequence[Plan]) -> dict[str, Subnet]:
    """{network: its IPv4 subnet} of other networks, those without a bridge (and a route) too."""
    return {other.name: subnets.parse(other.subnet) for other in others}


def unknown(name: str) -> NotFound:
    """The error for a network that does not exist."""
    names = ", ".join(one.name for one in plan.load_all()) or "none"
    return NotFound(f"there is no network {name!r}", why=f"networks: {names}", next=f"labkit network create {name}")
