"""Floor 2: networks that people make: created, described, removed; containers connected and taken off.

Owns: what a name, a subnet and a driver's options may be, the description that `inspect` prints,
and connecting a container that runs already.

Read: docker-network-create(1) for what people expect; ip-link(8) for names of devices.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from labkit.errors import BadInput, InUse, LabError, NotFound, explain
from labkit.kernel import rtnetlink
from labkit.kernel.ledger import Ledger
from labkit.kernel.links import LONGEST_NAME
from labkit.kernel.netlink import Netlink
from labkit.network import bridge, inside, plan, plugs, ports, subnets
from labkit.network.endpoint import Endpoint
from labkit.network.plan import Member, Plan
from labkit.network.subnets import Subnet

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
RESERVED = {"bridge": f"the default network, {bridge.DEFAULT}", "host": "the machine's own", "none": "no network"}
RESERVED |= {"default": RESERVED["bridge"], bridge.DEFAULT: "made and removed with its containers"}


class Wish(NamedTuple):
    """One `labkit network create`; texts as written on the command line."""

    name: str
    driver: str = "bridge"
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ipv6: bool = False
    internal: bool = False
    options: Mapping[str, str] = {}


def create(wish: Wish) -> Plan:
    """Make a network that stays until it is removed. Raises BadInput, InUse, NotFound or LabError.

    Nothing is left behind then.
    """
    here = _understand(wish)
    with plan.locked(), Netlink() as netlink:
        others = [other for other in plan.load_all() if other.name != here.name]
        if plan.load(here.name).subnet:
            raise InUse(f"there is a network {here.name} already", next=f"labkit network rm {here.name}")
        if here.driver != "bridge":
            plugs.parent(netlink, here)
        for text in (here.subnet, here.subnet6):
            if text:
                # A macvlan shares the wire of its parent, and so may share its subnet.
                family = subnets.parse(text).family
                routed = bridge.routed(netlink, family) if here.driver == "bridge" else []
                subnets.refuse_overlap(subnets.parse(text), routed, _planned(others, family))
        try:
            bridge.make(netlink, here)
        except BaseException:
            bridge.dissolve(here)
            raise
    return here


def _understand(wish: Wish) -> Plan:
    """The plan that the options come to, the subnet still open where none was given."""
    here = Plan(wish.name)
    _check_name(wish)
    here.driver, here.kept, here.internal = wish.driver, True, wish.internal
    here.interface = wish.name if wish.driver == "bridge" else ""
    here.parent = wish.options.get("parent", "")
    for text in wish.subnets:
        if subnets.parse(text).family == socket.AF_INET6:
            _once("--subnet", here.subnet6, text)
            here.subnet6 = text
        else:
            _once("--subnet", here.subnet, text)
            here.subnet = text
    if wish.ipv6 and not here.subnet6:
        here.subnet6 = str(subnets.choose6())
    here.gateway6 = subnets.parse(here.subnet6).address(1) if here.subnet6 else ""
    for text in wish.gateways:
        which = here.subnet6 if ":" in text else here.subnet
        if not which:
            raise BadInput(f"--gateway {text} needs the --subnet that it lies in")
        found = subnets.wanted(subnets.parse(which), text, {}, "--gateway")
        if ":" in text:
            here.gateway6 = found
        else:
            here.gateway = found
    return here


def _once(option: str, before: str, text: str) -> None:
    if before:
        raise BadInput(f"{option} {text}: a network has one subnet of a family", why=f"{before} was given already")


def _check_name(wish: Wish) -> None:
    name = wish.name
    if not NAME.fullmatch(name):
        raise BadInput(
            f"{name!r} cannot be a network's name",
            why="a name is a letter or digit, and then letters, digits, _ . or -",
            next="for example labkit network create shop",
        )
    if name in RESERVED:
        raise BadInput(f"{name!r} is a name with a meaning of its own: {RESERVED[name]}", next="another name")
    if wish.driver not in plugs.PLUG:
        raise BadInput(f"there is no network driver {wish.driver!r}", next=f"one of {', '.join(plugs.PLUG)}")
    if wish.driver == "bridge" and len(name) > LONGEST_NAME:
        raise BadInput(
            f"the name {name!r} is too long for a bridge",
            why=f"the bridge gets the network's name, which has {len(name)} characters, and the kernel keeps "
            f"{LONGEST_NAME} for the name of a device (IFNAMSIZ is 16, one byte ends it)",
            next=f"labkit network create {name[:LONGEST_NAME]}",
        )
    allowed = set() if wish.driver == "bridge" else {"parent"}
    for option in wish.options:
        if option not in allowed:
            raise BadInput(
                f"--opt {option}: the driver {wish.driver} has no such option",
                next="-o parent=DEVICE, with -d macvlan or -d ipvlan",
            )
    if wish.driver != "bridge" and not wish.options.get("parent"):
        raise BadInput(f"a {wish.driver} network stands on a device of the machine", next="-o parent=eth0")


def _planned(others: Sequence[Plan], family: socket.AddressFamily) -> dict[str, Subnet]:
    texts = {other.name: other.subnet6 if family == socket.AF_INET6 else other.subnet for other in others}
    return {name: subnets.parse(text) for name, text in texts.items() if text}


def remove(name: str) -> None:
    """Dissolve a network. Raises NotFound, or InUse while containers are on it."""
    with plan.locked():
        here = get(name)
        if here.containers:
            names = ", ".join(one.name or key[:12] for key, one in here.containers.items())
            raise InUse(
                f"network {name} is in use",
                why=f"containers are on it: {names}",
                next=f"labkit network disconnect {name} CONTAINER, or end them",
            )
        bridge.dissolve(here)


def get(name: str) -> Plan:
    """The network's plan. Raises NotFound, with the names of those that there are."""
    here = plan.load(bridge.DEFAULT if name in ("bridge", "default") else name)
    if not here.subnet:
        raise bridge.unknown(name)
    return here


def describe(here: Plan) -> dict[str, Any]:
    """The network as `docker network inspect` words it."""
    pairs = [(here.subnet, here.gateway), (here.subnet6, here.gateway6)]
    lengths = {family: text.partition("/")[2] for family, text in (("v4", here.subnet), ("v6", here.subnet6))}
    return {
        "Name": here.name,
        "Scope": "local",
        "Driver": here.driver,
        "EnableIPv6": bool(here.subnet6),
        "Internal": here.internal,
        "IPAM": {
            "Driver": "default",
            "Config": [{"Subnet": subnet, "Gateway": gateway} for subnet, gateway in pairs if subnet],
        },
        "Options": {"parent": here.parent} if here.parent else {"bridge": here.interface},
        "Containers": {
            key: {
                "Name": one.name,
                "Aliases": list(one.aliases),
                "Interface": one.device,
                "HostInterface": one.host_interface,
                "MacAddress": one.mac,
                "IPv4Address": f"{one.v4}/{lengths['v4']}",
                "IPv6Address": f"{one.v6}/{lengths['v6']}" if one.v6 else "",
            }
            for key, one in here.containers.items()
        },
    }


# --- containers that run already ---------------------------------------------------------


def connect(
    name: str,
    container: str,
    pid: int,
    *,
    label: str = "",
    aliases: Sequence[str] = (),
    address: str = "",
    address6: str = "",
) -> Endpoint:
    """Give a running container a place on one more network. Raises what `bridge.attach` does."""
    ledger = Ledger(container)
    network = get(name).name
    extra: dict[str, Any] = {"label": label, "aliases": aliases, "address": address, "address6": address6}
    endpoint = bridge.attach(container, pid, ledger, network, **extra)
    try:
        with inside.visit(pid):
            inside.configure(endpoint)
    except BaseException as error:
        bridge.detach(container, ledger, network)
        if isinstance(error, OSError):
            raise LabError(f"cannot set up the container's end of network {name}", why=str(error)) from error
        raise
    return endpoint


def disconnect(name: str, container: str, pid: int) -> None:
    """Take a container off a network; what was published into it over this network is closed.

    Where its way out went by this network, it gets one by the next that leads anywhere, in order of name.

    Raises NotFound when it is not on it.
    """
    here = get(name)
    member = here.containers.get(container)
    if member is None:
        on = ", ".join(one.name for one in plan.networks_of(container)) or "no network"
        raise NotFound(f"the container is not on network {name}", why=f"it is on {on}")
    ledger = Ledger(container)
    ports.close_towards((member.v4, member.v6), container, ledger)
    before = _pull(pid, member)
    bridge.detach(container, ledger, here.name)
    _lead_out(pid, container, before)


def _pull(pid: int, member: Member) -> set[socket.AddressFamily]:
    """Take out a device that stands in the container alone; the families that have a way out before."""
    try:
        with inside.visit(pid):
            found = _ways_out()
            if not member.host_interface:  # of a veth pair, the machine's end takes the other with it
                rtnetlink.delete_link_if_there(member.device)
            return found
    except NotFound:  # the container has ended meanwhile, and its devices with it
        return set()


def _ways_out() -> set[socket.AddressFamily]:
    """The families in which the namespace that we are in has a default route."""
    with Netlink() as netlink:
        return {_family(route.via) for route in rtnetlink.routes(netlink) if route.to == "default" and route.via}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _lead_out(pid: int, container: str, before: set[socket.AddressFamily]) -> None:
    """A default route, by the next network that leads anywhere, for each family that has lost its own."""
    gateways = [gateway for one in plan.networks_of(container) if not one.internal
                for gateway in (one.gateway, one.gateway6) if gateway]  # fmt: skip
    if not before or not gateways:
        return
    try:
        with inside.visit(pid), Netlink() as netlink:
            for family in before - _ways_out():
                gateway = next((each for each in gateways if _family(each) == family), "")
                if gateway:
                    rtnetlink.add_default_route(netlink, gateway)
    except NotFound:
        pass  # it has ended meanwhile
    except OSError as error:
        explain(error, "cannot give the container another way out", next="ip route, in the container")
