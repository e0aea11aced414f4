"""Top floor: the check of cni-plugin.

Owns: a subnet of two addresses for containers, which come and go in the order that loses addresses.
Read: the CNI specification, "ADD", "DEL" and "Result types"; ip-netns(8).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Any

from labkit.lessons import netground
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

Plugin = Callable[[dict[str, str], dict[str, Any]], dict[str, Any]]


def check(plugin: Plugin, lab: Ground) -> None:
    """Each result is compared with what `ip -j` sees inside; a word goes from one container to the other."""
    subnet = ipaddress.ip_network(f"10.{lab.number(1, 250)}.{lab.number(0, 250)}.{8 * lab.number(0, 31)}/29")
    gateway, *rest = (str(address) for address in subnet.hosts())
    folder = lab.folder()
    config = {"cniVersion": "1.0.0", "name": lab.token(), "bridge": f"br{lab.token(6)}", "subnet": str(subnet),
              "gateway": gateway, "dataDir": str(folder)}  # fmt: skip
    machine = lab.child("machine")
    Child.do(machine, netground.ip, "link set lo up")
    homes = [lab.child(f"container-{number}") for number in (1, 2)]
    ids, device = [lab.token(64) for _ in homes], f"eth{lab.number(0, 9)}"

    def run(command: str, number: int, path: str = "") -> Any:
        variables = {"CNI_COMMAND": command, "CNI_CONTAINERID": ids[number], "CNI_IFNAME": device,
                     "CNI_NETNS": path or f"/proc/{homes[number].pid}/ns/net"}  # fmt: skip
        return machine.do(plugin, variables, config, stage=command)

    taken = []
    for number, home in enumerate(homes):
        Child.do(home, netground.own_network)
        taken.append(look(run("ADD", number), home, device, config))
    if taken[0] == taken[1]:
        raise Wrong(f"both containers have been given {taken[0]}")
    word = lab.token()
    Child.do(homes[0], netground.serve, 80, word)
    if not (heard := Child.do(homes[1], netground.fetch, taken[0].split("/")[0], 80)).startswith(word):
        raise Wrong(f"one container calls the other at {taken[0]}, and gets: {heard}")
    if not Child.do(homes[0], netground.reaches, gateway):
        raise Wrong(f"a container does not reach its gateway, {gateway}")
    run("DEL", 0)
    if device in Child.do(homes[0], addresses):
        raise Wrong(f"after DEL the container still has its device {device}")
    if device not in Child.do(homes[1], addresses):
        raise Wrong("DEL of the first container has taken the device of the second one too")
    run("DEL", 0)  # twice
    run("DEL", 0, "/proc/1/no-such-namespace")
    for turn in range(len(rest)):  # more often than there are addresses
        try:
            look(run("ADD", 0), homes[0], device, config)
        except Exception as error:
            raise Wrong(f"after {turn + 1} times DEL and ADD, ADD fails: {error}. The subnet has {len(rest)} addresses, "
                        "and two are in use: does DEL give them back?") from error  # fmt: skip
        run("DEL", 0)


def look(result: Any, home: Child, device: str, config: dict[str, Any]) -> str:
    """The address that the result and the container agree about."""
    inside = Child.do(home, addresses)
    if device not in inside:
        raise Wrong(f"after ADD the container has no device {device}; it has {', '.join(inside)}")
    up, has = inside[device]
    if not up:
        raise Wrong(f"after ADD {device} is down")
    try:
        said = result["ips"][0]["address"]
        json.dumps(result)
    except (TypeError, KeyError, IndexError):
        raise Wrong(f"the result of ADD has no ips[0].address: {result!r}") from None
    if said not in has:
        raise Wrong(f"the result says {said}, and {device} has {', '.join(has) or 'no address'}")
    if ipaddress.ip_interface(said).network != ipaddress.ip_network(config["subnet"]):
        raise Wrong(f"{said} is not of the subnet {config['subnet']}")
    if result.get("cniVersion") != config["cniVersion"]:
        raise Wrong(f"the result says cniVersion {result.get('cniVersion')!r}, "
                    f"and the configuration {config['cniVersion']!r}")  # fmt: skip
    routes = json.loads(Child.do(home, netground.run, "ip", "-j", "route", "show", "default"))
    if [way.get("gateway") for way in routes] != [config["gateway"]]:
        raise Wrong(f"the container has no default route by {config['gateway']}")
    return str(said)


def addresses() -> dict[str, tuple[bool, list[str]]]:
    """In a container: {device: (is it up, its IPv4 addresses)}."""
    found = json.loads(netground.run("ip", "-j", "-4", "address", "show"))
    flags = {one["ifname"]: "UP" in one["flags"] for one in json.loads(netground.run("ip", "-j", "link", "show"))}
    has = {one["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in one["addr_info"]] for one in found if one}
    return {name: (up, has.get(name, [])) for name, up in flags.items()}
