"""Floor 2: a bridge network: a switch in the kernel, and a cable to each container.

Owns: the bridge and its address, the table that lets containers out (masquerade, always
bounded by their own addresses), IP forwarding, and one veth pair and address a container.
What containers share belongs to the ledger network-NAME and goes with the last of them.

Read: bridge(8), veth(4), nft(8) on masquerade; Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit import paths
from labkit.errors import InUse, LabError, explain
from labkit.kernel import nftables, rtnetlink
from labkit.kernel.ledger import Ledger
from labkit.kernel.netlink import Netlink
from labkit.kernel.nftables import match, meta, network, payload
from labkit.network.endpoint import Endpoint

DEFAULT = "labkit0"
MARK = "labkit"  # the alias by which a bridge of ours is known again
# One table for IPv4 alone: removing it removes every rule of ours and nobody else's.
FAMILY, TABLE = "ip", "labkit"
SUBNETS = [f"172.{number}.0.0" for number in range(30, 16, -1)] + ["10.213.0.0", "10.214.0.0", "192.168.213.0"]
PREFIX = 24
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def attach(container: str, pid: int, ledger: Ledger, name: str = DEFAULT) -> Endpoint:
    """Give the process `pid` a place on the bridge; the bridge is made when it is not there.

    Raises InUse when a foreign device or table has our name, LabError when the kernel refuses;
    nothing of this container is left on the network then.
    """
    with _locked(name) as plan, Netlink() as netlink:
        try:
            if not plan.base or _find(netlink, name) is None:
                _make(netlink, name, plan)
            return _connect(netlink, container, pid, ledger, name, plan)
        except BaseException:
            _leave(container, ledger, name, plan)
            raise


def _connect(netlink: Netlink, container: str, pid: int, ledger: Ledger, name: str, plan: Plan) -> Endpoint:
    bridge = _find(netlink, name)
    if bridge is None or bridge.kind != "bridge" or bridge.alias != MARK:
        raise _foreign(f"network device {name}", f"ip link show {name}")
    address = plan.free_address()
    mac = b"\x02\x42" + socket.inet_aton(address)  # locally administered, and telling its address
    endpoint = Endpoint(name, f"lk{container[:10]}", address, PREFIX, _host(plan.base, 1), mac.hex(":"))
    plan.addresses[container] = address
    plan.save()
    ledger.record("link", name=endpoint.host_interface)
    try:
        rtnetlink.create_veth(netlink, endpoint.host_interface, endpoint.name, pid, mac, bridge.ifindex)
        # Where br_netfilter is loaded, DNAT happens inside the bridge: without this a container
        # could not reach its own published port, for its frames may not turn round.
        rtnetlink.set_hairpin(netlink, socket.if_nametoindex(endpoint.host_interface))
    except OSError as error:
        explain(error, f"cannot connect the container to {name}")
    return endpoint


def detach(container: str, ledger: Ledger, name: str = DEFAULT) -> None:
    """Take the cable out and free the address; with the last container the network goes too."""
    with _locked(name) as plan:
        _leave(container, ledger, name, plan)


def _leave(container: str, ledger: Ledger, name: str, plan: Plan) -> None:
    for entry in ledger.entries():
        if entry.kind == "link":
            ledger.release(entry)
    plan.addresses.pop(container, None)
    if plan.addresses:
        plan.save()
    else:
        Ledger(f"network-{name}").release_all()
        plan.file.unlink(missing_ok=True)


def reset() -> None:
    """Forget every network; its resources were in ledgers, which `labkit reset` has released."""
    for file in (paths.run() / "network").glob("*.json"):
        with _locked(file.stem) as plan:
            Ledger(f"network-{file.stem}").release_all()
            plan.file.unlink(missing_ok=True)


def subnet(name: str = DEFAULT) -> str | None:
    """The network's addresses, such as 172.30.0.0/24; None when it does not exist now."""
    base = Plan(name).base
    return f"{base}/{PREFIX}" if base else None


def _make(netlink: Netlink, name: str, plan: Plan) -> None:
    """The bridge, its address, the way out.  Each is in the ledger before it exists.

    The plan is saved last: as long as it is not there, the network is not whole.
    """
    ledger = Ledger(f"network-{name}")
    ledger.release_all()  # what a killed process left half made
    # Before anything is written down: what stands in the ledger is removed by a reset.
    if _find(netlink, name) is not None:
        raise _foreign(f"network device {name}", f"ip link show {name}")
    if nftables.ruleset(FAMILY, TABLE):
        raise _foreign(f"nft table {FAMILY} {TABLE}", f"nft list table {FAMILY} {TABLE}")
    base = _free_subnet(netlink)
    ledger.record("link", name=name)
    try:
        rtnetlink.create_bridge(netlink, name)
        index = socket.if_nametoindex(name)
        rtnetlink.set_alias(netlink, index, MARK)
        rtnetlink.add_address(netlink, index, _host(base, 1), PREFIX)
        rtnetlink.set_up(netlink, index)
    except OSError as error:
        explain(error, f"cannot make the bridge {name}")
    before = FORWARDING.read_text().strip()
    if before != "1":
        ledger.record("sysctl", path=str(FORWARDING), before=before)
        FORWARDING.write_text("1")
    ledger.record("nft_table", family=FAMILY, name=TABLE)
    nftables.apply(_table(name, base), f"cannot let {name} out to other networks")
    plan.base = base
    plan.save()


def _table(name: str, base: str) -> list[nftables.Statement]:
    """The whole table: NAT for what leaves, a chain for published ports, and room for neither else."""
    common = {"family": FAMILY, "table": TABLE}
    chains = [
        {"name": "postrouting", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"},
        {"name": "prerouting", "type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"},
    ]
    # Bounded by source and by way out: an unbounded masquerade breaks the machine's own name service.
    leave = [
        match(payload("ip", "saddr"), network(base, PREFIX)),
        match(meta("oifname"), name, "!="),
        {"masquerade": None},
    ]
    # A container that reaches a published port of its own network comes back through the bridge (hairpin).
    hairpin = [
        match(payload("ip", "saddr"), network(base, PREFIX)),
        match(meta("oifname"), name),
        match({"ct": {"key": "status"}}, "dnat", "in"),
        {"masquerade": None},
    ]
    return [
        {"create": {"table": {"family": FAMILY, "name": TABLE}}},  # fails where "add" would join another's
        *({"add": {"chain": {**common, **chain}}} for chain in chains),
        {"add": {"rule": {**common, "chain": "postrouting", "expr": leave}}},
        {"add": {"rule": {**common, "chain": "postrouting", "expr": hairpin}}},
    ]


def _find(netlink: Netlink, name: str) -> rtnetlink.Link | None:
    return next((link for link in rtnetlink.links(netlink) if link.name == name), None)


def _foreign(thing: str, look: str) -> InUse:
    return InUse(
        f"there is a {thing} that labkit did not make",
        why="its name is the one that labkit's network needs, and no entry in this labkit's ledger owns it",
        next=f"{look}; remove or rename it, if it is yours",
    )


def _free_subnet(netlink: Netlink) -> str:
    """The first of our candidates that overlaps no route of this machine."""
    routed = [(_number(address), prefix) for address, prefix in rtnetlink.destinations(netlink)]
    for base in SUBNETS:
        if not any(
            (_number(base) ^ other) >> (32 - min(prefix, PREFIX)) == 0 for other, prefix in routed if prefix > 0
        ):
            return base
    raise LabError(
        "no addresses are free for containers", why=f"this machine has routes to all of {', '.join(SUBNETS)}"
    )


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address), "big")


def _host(base: str, number: int) -> str:
    return f"{base.rpartition('.')[0]}.{number}"


# --- who has which address, for as long as the machine runs -------------------------------


class Plan:
    """The network's addresses: its base, and who has which. Empty while the network does not exist."""

    def __init__(self, name: str) -> None:
        self.file = paths.run() / "network" / f"{name}.json"
        self.base = ""
        self.addresses: dict[str, str] = {}
        if self.file.exists():
            saved = json.loads(self.file.read_text())
            self.base, self.addresses = saved["base"], saved["addresses"]

    def save(self) -> None:
        """Write it whole or not at all."""
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps({"base": self.base, "addresses": self.addresses}))
        draft.rename(self.file)

    def free_address(self) -> str:
        """The lowest that nobody has; the first is the bridge's. Raises LabError when none is left."""
        taken = set(self.addresses.values())
        for number in range(2, 255):
            if _host(self.base, number) not in taken:
                return _host(self.base, number)
        raise LabError("the network has no address left", why=f"{len(taken)} containers are on it")


@contextmanager
def _locked(name: str) -> Iterator[Plan]:
    """The network's plan, nobody else changing it meanwhile."""
    folder = paths.run() / "network"
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield Plan(name)
    finally:
        os.close(fd)
