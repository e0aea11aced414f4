"""Floor 3: a container's place in the networks: what --network means, connecting, and giving back.

Owns: the modes (a network's name, none, host, container:NAME, cni:NAME), which options go with which, and
the files by which the container finds names.

Read: docker-run(1), "Network settings".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labkit.errors import BadInput, Refused
from labkit.kernel import namespaces
from labkit.kernel.ledger import Ledger
from labkit.network import names, plan, ports
from labkit.runtime import container, state

DEFAULT = "labkit0"  # as labkit.network.bridge has it, which a container without a network need not import
# Modes without a place on a network, and why nothing can be asked of one.
ALONE = {
    "none": "with --network none nothing leads in",
    "host": "with --network host the container has the machine's own ports and addresses",
    "container": "the ports and addresses are those of the other container",
}


class Wiring(NamedTuple):
    """What the network options of one `labkit run` come to."""

    mode: str  # of ALONE, "network", or "cni"
    network: str = ""
    aliases: tuple[str, ...] = ()
    address: str = ""
    address6: str = ""
    other: dict[str, Any] | None = None  # the state of the container whose network is shared
    warning: str = ""  # what somebody who asked for nothing may miss

    @property
    def path(self) -> str:
        """The network namespace to join, or ""."""
        return f"/proc/{self.other['pid']}/ns/net" if self.other else ""


def understand(
    network: str,
    *,
    published: bool = False,
    aliases: tuple[str, ...] = (),
    address: str = "",
    address6: str = "",
) -> Wiring:
    """Raises BadInput for options that do not go together, NotFound for a network or container that is not there."""
    mode, _, name = network.partition(":")
    asked = {"--publish": published, "--network-alias": aliases, "--ip": address, "--ip6": address6}
    if mode in ALONE and bool(name) == (mode == "container"):
        for option, given in asked.items():
            if given:
                raise BadInput(f"{option} needs --network bridge, or a network of your own", why=ALONE[mode])
        if mode != "container":
            return Wiring(mode)
        found = state.find(name)
        if found["status"] != "running":
            raise Refused(
                f"cannot share the network of {name}", why="the container does not run", next="labkit ps --all"
            )
        return Wiring(mode, other=found)
    if namespaces.nested():
        return _of_a_user(network, [option for option, given in asked.items() if given])
    if mode == "cni":
        return _of_cni(name, {"--network-alias": aliases, "--ip": address, "--ip6": address6})
    if network in ("bridge", "default", DEFAULT):
        if aliases:
            raise BadInput(
                "--network-alias needs a network of your own",
                why="the default network has no name service",
                next="labkit network create shop, then --network shop",
            )
        return Wiring("network", DEFAULT, (), address, address6)
    from labkit.network import networks

    here = networks.get(network)
    if published and (here.internal or here.driver != "bridge"):
        why = (
            "it is internal" if here.internal else f"its containers stand on {here.parent} with addresses of their own"
        )
        raise BadInput(f"--publish: nothing leads into network {here.name} by the machine's ports", why=why)
    return Wiring("network", here.name, aliases, address, address6)


def _of_a_user(network: str, asked: Sequence[str]) -> Wiring:
    """An ordinary user's container: alone, where root's would be on the default network. Raises Refused."""
    why = "bridges, and the rules that lead to them, are the machine's, and this user is root of a user namespace"
    own = "--network host: what the program listens on is the machine's port"
    if network not in ("bridge", "default", DEFAULT):
        asked = [f"--network {network}", *asked]
    if asked:
        raise Refused(f"{asked[0]} needs root", why=why, next=own)
    return Wiring("none", warning=f"it is on no network: {why}; {own}")


def _of_cni(name: str, asked: dict[str, Any]) -> Wiring:
    from labkit.network import cni_config

    for option, given in asked.items():
        if given:
            raise BadInput(f"{option} does not reach the plugins of a CNI network", next="set it in the configuration")
    return Wiring("cni", cni_config.load(name).name)


def connect(
    one: container.Container, note: dict[str, Any], wiring: Wiring, mappings: Sequence[ports.PortMapping] = ()
) -> None:
    """Give the container, which is made and waits, its place.

    Writes address and network into `note`, and the files by which the container finds names.
    """
    etc, hostname = one.folder / "etc", one.config["hostname"]
    if wiring.warning:
        one.warnings.append(wiring.warning)
    if wiring.mode == "container":
        for name in ("hostname", "hosts", "resolv.conf"):
            (etc / name).write_text((state.folder(str((wiring.other or {})["id"])) / "etc" / name).read_text())
        return
    if wiring.mode == "cni":
        from labkit.network import cni

        place = cni.attach(one.id, one.pid, one.ledger, wiring.network, ports=mappings)
        note["network"], note["ports"] = f"cni:{wiring.network}", [str(mapping) for mapping in mappings]
        note["address"] = next((each.partition("/")[0] for each in place.addresses), "")
        write_names(etc, hostname, note["address"], nameservers=place.nameservers)
        return
    if wiring.mode != "network":
        write_names(etc, hostname, None)
        return
    from labkit.network import bridge, inside

    endpoint = bridge.attach(
        one.id,
        one.pid,
        one.ledger,
        wiring.network,
        label=note["name"],
        aliases=wiring.aliases,
        address=wiring.address,
        address6=wiring.address6,
    )
    with inside.visit(one.pid):
        inside.configure(endpoint)
    note["address"] = endpoint.address
    note["interface"] = endpoint.host_interface
    note["network"] = wiring.network
    write_names(etc, hostname, endpoint.address, wiring.network)
    if endpoint.address6:
        with (etc / "hosts").open("a") as file:
            file.write(f"{endpoint.address6}\t{hostname}\n")
    if mappings:
        note["ports"] = [str(mapping) for mapping in ports.publish(mappings, endpoint, one.id, one.ledger)]


def write_names(
    etc: Path, hostname: str, address: str | None, network: str = "", nameservers: Sequence[str] = ()
) -> None:
    """hostname, hosts and resolv.conf, once the address is known, just before the container sees them."""
    (etc / "hostname").write_text(hostname + "\n")
    (etc / "hosts").write_text(names.hosts(hostname, address))
    gateways = _name_service(plan.load(network)) if network else []
    (etc / "resolv.conf").write_text(names.resolv_conf(gateways or nameservers))


def ask_elsewhere(identifier: str) -> None:
    """Point a running container at the name service of a network that it is on now, or at the machine's servers."""
    served = [_name_service(one) for one in plan.networks_of(identifier)]
    gateways = next((each for each in served if each), [])
    # Written in place: the container has this very file bound over its own.
    (state.folder(identifier) / "etc" / "resolv.conf").write_text(names.resolv_conf(gateways))


def _name_service(here: plan.Plan) -> list[str]:
    """Where a network's name service listens; the default network and macvlan have none."""
    return [each for each in (here.gateway, here.gateway6) if each and here.kept and here.driver == "bridge"]


def give_back(ledger: Ledger) -> None:
    """Take an ended container off its networks, and close its ports."""
    kinds = {entry.kind for entry in ledger.entries()}
    if "forwarder" in kinds:
        ports.unpublish(ledger.owner, ledger)
    if "command" in kinds:
        from labkit.network import cni

        cni.detach(ledger)
    if "link" in kinds or plan.networks_of(ledger.owner):
        from labkit.network import bridge

        bridge.detach_all(ledger.owner, ledger)
