"""Floor 3: `labkit network`: the networks that people make, spelt as docker spells them.

Owns: the verbs below `labkit network`, their options, and what they print.  It stands on this
floor because `connect` must find a container; what the verbs do is in labkit.network.networks.

Read: docker-network(1).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from labkit.errors import BadInput, LabError, Refused
from labkit.network import networks, plan
from labkit.runtime import container, state, wiring
from labkit.runtime.parser import Parser


def main(argv: list[str]) -> int:
    """labkit network VERB ..."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] not in VERBS:
        raise BadInput(f"labkit network has no verb {argv[0]!r}", next=f"one of {', '.join(VERBS)}")
    return VERBS[argv[0]][0](argv[1:])


def create(argv: list[str]) -> int:
    """labkit network create [OPTIONS] NAME"""
    parser = Parser(prog="labkit network create", description="make a network; it stays until it is removed")
    parser.add_argument("-d", "--driver", default="bridge", help="bridge (default), macvlan or ipvlan")
    parser.add_argument("--subnet", action="append", default=[], metavar="10.5.0.0/24", help="one of each family")
    parser.add_argument("--gateway", action="append", default=[], metavar="ADDRESS", help="the subnet's first, if not")
    parser.add_argument("--ipv6", action="store_true", help="IPv6 too, with a random prefix unless --subnet names one")
    parser.add_argument("--internal", action="store_true", help="no way out of it, and none in")
    parser.add_argument("-o", "--opt", action="append", default=[], metavar="parent=DEVICE", help="for macvlan, ipvlan")
    parser.add_argument("name", metavar="NAME")
    given = parser.parse_args(argv)
    container.require_root()
    options = dict(text.partition("=")[::2] for text in given.opt)
    networks.create(
        networks.Wish(
            given.name,
            given.driver,
            tuple(given.subnet),
            tuple(given.gateway),
            given.ipv6,
            given.internal,
            options,
        )
    )
    print(given.name)
    return 0


def ls(argv: list[str]) -> int:
    """labkit network ls [--quiet]"""
    parser = Parser(prog="labkit network ls", description="list the networks that there are")
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    given = parser.parse_args(argv)
    rows = [("NAME", "DRIVER", "SUBNET", "IPV6", "CONTAINERS")]
    rows += [
        (one.name, one.driver, one.subnet, one.subnet6 or "-", str(len(one.containers))) for one in plan.load_all()
    ]
    if given.quiet:
        print(*(row[0] for row in rows[1:]), sep="\n", end="\n" if rows[1:] else "")
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def inspect(argv: list[str]) -> int:
    """labkit network inspect NAME ..."""
    parser = Parser(prog="labkit network inspect", description="everything about networks, as JSON")
    parser.add_argument("names", nargs="+", metavar="NAME")
    found = [networks.describe(networks.get(name)) for name in parser.parse_args(argv).names]
    print(json.dumps(found, indent=4))
    return 0


def rm(argv: list[str]) -> int:
    """labkit network rm NAME ..."""
    parser = Parser(prog="labkit network rm", description="remove networks on which no container is")
    parser.add_argument("names", nargs="+", metavar="NAME")
    given = parser.parse_args(argv)
    container.require_root()
    status = 0
    for name in given.names:
        try:
            networks.remove(name)
            print(name)
        except LabError as error:  # the others are removed all the same
            print(f"labkit network rm: {error}", file=sys.stderr)
            status = error.status
    return status


def connect(argv: list[str]) -> int:
    """labkit network connect [OPTIONS] NETWORK CONTAINER"""
    parser = Parser(prog="labkit network connect", description="give a running container a place on one more network")
    parser.add_argument("--alias", action="append", default=[], metavar="NAME", help="a further name on it")
    parser.add_argument("--ip", default="", metavar="ADDRESS")
    parser.add_argument("--ip6", default="", metavar="ADDRESS")
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("container", metavar="CONTAINER")
    given = parser.parse_args(argv)
    container.require_root()
    found = _running(given.container, f"connect it to {given.network}")
    config = json.loads((state.folder(found["id"]) / "config.json").read_text())
    kinds = {entry["type"]: entry.get("path") for entry in config["linux"]["namespaces"]}
    if kinds.get("network", "the machine's") is not None:
        raise Refused(
            f"container {given.container} has no network of its own",
            why="it shares the machine's, or another container's",
            next="connect the container whose network it is",
        )
    more: dict[str, Any] = {"aliases": given.alias, "address": given.ip, "address6": given.ip6}
    networks.connect(given.network, found["id"], found["pid"], label=found["name"], **more)
    wiring.ask_elsewhere(found["id"])
    return 0


def disconnect(argv: list[str]) -> int:
    """labkit network disconnect NETWORK CONTAINER"""
    parser = Parser(prog="labkit network disconnect", description="take a running container off a network")
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("container", metavar="CONTAINER")
    given = parser.parse_args(argv)
    container.require_root()
    found = _running(given.container, f"take it off {given.network}")
    networks.disconnect(given.network, found["id"], found["pid"])
    wiring.ask_elsewhere(found["id"])
    return 0


def _running(name: str, what: str) -> dict[str, Any]:
    found = state.find(name)
    if found["status"] != "running":
        raise Refused(
            f"container {name} does not run: cannot {what}",
            why="its network namespace ended with its last process",
            next="labkit ps --all",
            status=1,
        )
    return found


VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "create": (create, "make a network"),
    "ls": (ls, "list the networks"),
    "inspect": (inspect, "everything about a network, as JSON"),
    "rm": (rm, "remove a network"),
    "connect": (connect, "give a running container a place on one more network"),
    "disconnect": (disconnect, "take a running container off a network"),
}


def usage() -> str:
    """The verbs, a line each."""
    lines = ["usage: labkit network VERB [--help] ...", ""]
    return "\n".join([*lines, *(f"  {verb:<11} {purpose}" for verb, (_, purpose) in VERBS.items())])
