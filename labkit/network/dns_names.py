"""Floor 2: who has which name on a network, read from the network's plan whenever that has changed.

Owns: the table of names: a container's name, its aliases and the short form of its id, each
also with the network's name behind a dot; and who may ask for them.

Read: labkit.network.plan for who writes the file; stat(2) on how a change is seen.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from labkit.network import plan

SHORT_ID = 12  # hexadecimal digits, as `labkit ps` and docker ps print


class PlannedNames:
    """The names of one network; a plan that is not there means that nobody has any."""

    def __init__(self, network: str) -> None:
        self.plan = plan.Plan(network)
        self._seen: tuple[int, int, int] | None = None
        self._by_name: dict[str, list[str]] = {}
        self._by_address: dict[str, str] = {}
        self._by_asker: dict[str, str] = {}  # container's id by address
        self._neighbours: dict[str, PlannedNames] = {}  # the machine's other networks

    def asked_by(self, address: str) -> Everywhere:
        """The names that the container at an address may know: those of every network that it is on."""
        self.refresh()
        container = self._by_asker.get(address)
        return Everywhere([self, *(self._also_with(container) if container else ())])

    def _also_with(self, container: str) -> list[PlannedNames]:
        found = []
        for name in sorted(file.stem for file in plan.folder().glob("*.json") if file.stem != self.plan.name):
            one = self._neighbours.setdefault(name, PlannedNames(name))
            one.refresh()
            if container in one.plan.containers:
                found.append(one)
        return found

    def addresses(self, name: str) -> Sequence[str] | None:
        """Those of a name, IPv4 and IPv6; None when nobody has the name."""
        self.refresh()
        return self._by_name.get(name)

    def name(self, address: str) -> str | None:
        """The full name of who has the address; None when nobody has it."""
        self.refresh()
        return self._by_address.get(address)

    def covers(self, address: str) -> bool:
        """Whether the address lies in the network."""
        self.refresh()
        where = ipaddress.ip_address(address.partition("%")[0])
        return any(where in ipaddress.ip_network(each) for each in (self.plan.subnet, self.plan.subnet6) if each)

    def is_gateway(self, address: str) -> bool:
        """Whether it is the machine's own address on the network."""
        self.refresh()
        return address in (self.plan.gateway, self.plan.gateway6)

    def refresh(self) -> None:
        """Read the plan when it is another file than the one last read; it is replaced whole, never written into."""
        try:
            now = self.plan.file.stat()
            seen = (now.st_ino, now.st_mtime_ns, now.st_size)
        except OSError:
            seen = (0, 0, 0)
        if seen == self._seen:
            return
        try:
            self.plan = plan.load(self.plan.name)
        except (OSError, ValueError, KeyError, TypeError):
            return  # what was known stays true for as long as nothing readable says otherwise
        self._seen = seen
        self._by_name, self._by_address = table(self.plan)
        self._by_asker = {each: key for key, one in self.plan.containers.items() for each in (one.v4, one.v6) if each}


class Everywhere:
    """Several networks as one; the first that knows a name has it (a Lookup of labkit.network.dns_answer)."""

    def __init__(self, networks: Sequence[PlannedNames]) -> None:
        self.networks = networks

    def addresses(self, name: str) -> Sequence[str] | None:
        """Those of a name; None when nobody has it."""
        return next((found for one in self.networks if (found := one.addresses(name)) is not None), None)

    def name(self, address: str) -> str | None:
        """The full name of who has the address; None when nobody has it."""
        return next((found for one in self.networks if (found := one.name(address)) is not None), None)

    def covers(self, address: str) -> bool:
        """Whether the address lies in one of them."""
        return any(one.covers(address) for one in self.networks)


def table(known: plan.Plan) -> tuple[dict[str, list[str]], dict[str, str]]:
    """(addresses by name, full name by address); names are lower case and without the last dot."""
    by_name: dict[str, list[str]] = {}
    by_address: dict[str, str] = {}
    network = known.name.lower()
    for identifier, member in known.containers.items():
        addresses = [str(ipaddress.ip_address(each)) for each in (member.v4, member.v6) if each]
        for name in {name.lower() for name in (*member.names(), identifier[:SHORT_ID])}:
            for full in (name, f"{name}.{network}"):
                by_name.setdefault(full, []).extend(addresses)
        for address in addresses:
            by_address[address] = f"{(member.name or identifier[:SHORT_ID]).lower()}.{network}"
    return by_name, by_address
