"""Floor 2: what the CNI commands do to the kit's networks: a container in, looked at, out.

Owns: who is attached by CNI: a ledger and a note for each container and interface, by which DEL
works when the namespace is gone, GC finds what nobody names any more, and `labkit reset` ends all.

Read: containernetworking/cni, SPEC.md, section 4 (commands) and 5 (the form of results); setns(2).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.errors import BadInput, LabError
from labkit.kernel import constants, rtnetlink
from labkit.kernel.ledger import Ledger
from labkit.kernel.netlink import Netlink
from labkit.kernel.syscalls import call
from labkit.network import bridge, inside, plan, ports
from labkit.network.cni_call import (
    BAD_CONFIGURATION,
    BAD_VARIABLE,
    NOT_AVAILABLE,
    OURS,
    UNKNOWN_CONTAINER,
    Refusal,
    Request,
)
from labkit.network.endpoint import Endpoint
from labkit.network.plan import Member, Plan


def key(container: str, ifname: str) -> str:
    """Our name for one attachment, of the form that container ids of ours have: 64 hexadecimal digits."""
    return hashlib.sha256(f"{container}/{ifname}".encode()).hexdigest()


def notes() -> Path:
    """Where it is written who is attached."""
    return paths.run() / "cni-attached"


def add(request: Request) -> dict[str, Any]:
    """ADD: a place on the network, the container's end set up, ports published. Nothing is left where it fails."""
    mine, network = key(request.container, request.ifname), request.configuration.get("network") or bridge.DEFAULT
    runtime = request.configuration.get("runtimeConfig") or {}
    mappings = [_mapping(one) for one in runtime.get("portMappings") or ()]
    _refuse_driver(network, BAD_CONFIGURATION)
    ledger = Ledger(mine)
    if ledger.entries():
        raise Refusal(OURS, f"{request.container} has its {request.ifname} already", "DEL comes before another ADD")
    with _process_in(request.netns) as pid:
        note = notes() / f"{mine}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        ledger.record("file", path=str(note))
        said = {"container": request.container, "ifname": request.ifname, "name": request.configuration["name"]}
        note.write_text(json.dumps(said))
        try:
            endpoint = bridge.attach(
                mine,
                pid,
                ledger,
                network,
                label=request.container,
                aliases=tuple(runtime.get("aliases") or ()),
                device=request.ifname,
            )
            with inside.visit(pid):
                inside.configure(endpoint)
            if mappings:
                ports.publish(mappings, endpoint, mine, ledger)
            return result(request, endpoint, plan.load(network))
        except BaseException:
            _remove(mine)
            raise


def _refuse_driver(network: str, code: int) -> None:
    """Of a network that has no bridge.

    Its device lives in the container's namespace alone: DEL could not end it without the namespace, and
    there is no cable to check.  Every CNI distribution has a plugin of its own for these.
    """
    driver = plan.load(network).driver
    if driver != "bridge":
        words = f"labkit-cni serves bridge networks, and {network} is a {driver} network"
        raise Refusal(code, words, f"the CNI plugin {driver}")


def result(request: Request, endpoint: Endpoint, network: Plan) -> dict[str, Any]:
    """The result of ADD: what the plugins before have made, and what we have."""
    previous = request.previous
    interfaces = list(previous.get("interfaces", ()))
    at = len(interfaces) + 2  # where the container's own end will stand
    with Netlink() as netlink:
        macs = {link.name: link.mac for link in rtnetlink.links(netlink)}
    interfaces += [{"name": name, "mac": macs[name]} for name in (network.interface, endpoint.host_interface)]
    interfaces.append({"name": endpoint.name, "mac": endpoint.mac, "sandbox": request.netns})
    ips, routes = list(previous.get("ips", ())), list(previous.get("routes", ()))
    for address, prefix, gateway, everywhere in (
        (endpoint.address, endpoint.prefix, endpoint.gateway, "0.0.0.0/0"),
        (endpoint.address6, endpoint.prefix6, endpoint.gateway6, "::/0"),
    ):
        if address:
            one = {"address": f"{address}/{prefix}", "gateway": gateway, "interface": at}
            if request.version < "1.0.0":  # until then the family stood beside
                one["version"] = "6" if ":" in address else "4"
            ips.append({name: value for name, value in one.items() if value != ""})
        if gateway:
            routes.append({"dst": everywhere, "gw": gateway})
    # The name service is there for networks that a person has made.
    own = [gateway for gateway in (network.gateway, network.gateway6) if gateway and network.kept]
    dns = {**previous.get("dns", {}), **({"nameservers": own} if own else {})}
    return {"cniVersion": request.version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns}


def delete(request: Request) -> None:
    """DEL: all of it, whether or not the namespace is still there; what is gone already is fine."""
    _remove(key(request.container, request.ifname))


def _remove(mine: str) -> None:
    ledger = Ledger(mine)
    if ledger.entries():
        ports.unpublish(mine)
    bridge.detach_all(mine, ledger)
    ledger.release_all()


def check(request: Request) -> None:
    """CHECK: the cable, the container's end, its addresses and its way out. Raises Refusal for what is not so."""
    mine = key(request.container, request.ifname)
    network = next(iter(plan.networks_of(mine)), None)
    if network is None:
        raise Refusal(UNKNOWN_CONTAINER, f"{request.container} has no {request.ifname} here")
    member = network.containers[mine]
    told = {one.get("address", "").partition("/")[0] for one in request.previous.get("ips", ())}
    if not told >= {each for each in (member.v4, member.v6) if each}:
        raise Refusal(OURS, f"prevResult does not know the address {member.v4}", f"it says {', '.join(sorted(told))}")
    with Netlink() as netlink:
        cable = rtnetlink.find_link(netlink, member.host_interface)
        switch = rtnetlink.find_link(netlink, network.interface)
    if switch is None or cable is None or cable.master != switch.ifindex:
        raise Refusal(OURS, f"no cable {member.host_interface} leads from the bridge {network.interface}")
    with _process_in(request.netns) as pid, inside.visit(pid):
        _check_inside(member, network)


def _check_inside(member: Member, network: Plan) -> None:
    with Netlink() as netlink:
        end = rtnetlink.find_link(netlink, member.device)
        if end is None or end.mac != member.mac:
            raise Refusal(OURS, f"the container has no {member.device} of address {member.mac}")
        has = {one.text.partition("/")[0] for one in rtnetlink.addresses(netlink) if one.ifindex == end.ifindex}
        ways = {route.via for route in rtnetlink.routes(netlink) if route.to == "default"}
    for address, gateway in ((member.v4, network.gateway), (member.v6, network.gateway6)):
        if address and address not in has:
            raise Refusal(OURS, f"{member.device} has lost its address {address}", f"it has {', '.join(sorted(has))}")
        if address and not network.internal and gateway not in ways:
            raise Refusal(OURS, f"the container has lost its default route by {gateway}")


def collect(request: Request) -> None:
    """GC: end what this configuration attached and the runtime does not name any more."""
    named = request.configuration.get("cni.dev/valid-attachments") or ()
    valid = {key(one["containerID"], one["ifname"]) for one in named}
    for note in sorted(notes().glob("*.json")):
        if note.stem not in valid and json.loads(note.read_text())["name"] == request.configuration["name"]:
            _remove(note.stem)


def status(request: Request) -> None:
    """STATUS: whether an ADD could succeed now. Raises Refusal."""
    network = request.configuration.get("network") or bridge.DEFAULT
    if network != bridge.DEFAULT and bridge.subnet(network) is None:
        raise Refusal(NOT_AVAILABLE, f"there is no network {network!r}", f"labkit network create {network}")
    _refuse_driver(network, NOT_AVAILABLE)
    if os.geteuid() != 0 or not shutil.which("nft"):
        raise Refusal(NOT_AVAILABLE, "labkit-cni needs root and the program nft")


def _mapping(one: dict[str, Any]) -> ports.PortMapping:
    """One entry of runtimeConfig.portMappings."""
    try:
        outside, within = int(one["hostPort"]), int(one["containerPort"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"portMappings has {one!r}", why="it needs hostPort and containerPort, two numbers") from error
    host, protocol = str(one.get("hostIP") or ""), str(one.get("protocol", "tcp")).lower()
    host = f"[{host}]" if ":" in host else host
    (mapping,) = ports.parse(f"{host + ':' if host else ''}{outside}:{within}/{protocol}")
    return mapping


@contextmanager
def _process_in(netns: str) -> Iterator[int]:
    """The pid of a process in the network namespace behind a path: devices are born into processes' namespaces."""
    try:
        there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refusal(UNKNOWN_CONTAINER, f"there is no network namespace {netns}", str(error)) from error
    if os.path.samestat(os.fstat(there), os.stat("/proc/self/ns/net")):
        os.close(there)
        raise Refusal(BAD_VARIABLE, f"CNI_NETNS {netns} is the machine's own network namespace")
    near, far = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        near.close()
        try:
            call("setns", there, constants.CLONE_NEWNET)
            far.send(b"in")
            far.recv(1)  # until the other end is closed
        except OSError as error:
            far.send(str(error).encode())
        finally:
            os._exit(0)
    far.close()
    os.close(there)
    try:
        said = near.recv(999)
        if said != b"in":
            raise LabError(f"cannot enter the network namespace {netns}", why=said.decode(errors="replace"))
        yield pid
    finally:
        near.close()
        os.waitpid(pid, 0)
