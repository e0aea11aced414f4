"""Floor 2: the machine's rules for containers: one nft table for all networks, removed whole.

Owns: the table `inet labkit`.  Its rules are always the same; what changes with the networks are
its sets, all of them in one transaction.  Rules that lead published ports in are labkit.network.ports'.

    bridges                our bridges
    within                 each bridge with itself
    internal               bridges that nothing leaves
    sources4, sources6     the containers' addresses, where they may go out

Read: nft(8) on sets, concatenations, masquerade; the packet's way through the hooks of netfilter.
"""

from __future__ import annotations

from collections.abc import Iterable

from labkit.errors import InUse
from labkit.kernel import nftables
from labkit.kernel.nftables import Statement, match, meta, network, payload
from labkit.network import subnets
from labkit.network.plan import Plan

# One table for IPv4 and IPv6: removing it removes every rule of ours and nobody else's.
FAMILY, TABLE = "inet", "labkit"
WHERE = {"family": FAMILY, "table": TABLE}
SETS: dict[str, Statement] = {
    "bridges": {"type": "ifname"},
    "within": {"type": ["ifname", "ifname"]},
    "internal": {"type": "ifname"},
    "sources4": {"type": "ipv4_addr", "flags": ["interval"]},
    "sources6": {"type": "ipv6_addr", "flags": ["interval"]},
}
CHAINS = {
    "prerouting": {"type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"},
    "forward": {"type": "filter", "hook": "forward", "prio": 0, "policy": "accept"},
    "postrouting": {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"},
}
COUNTER: Statement = {"counter": None}
DNATED = match({"ct": {"key": "status"}}, "dnat", "in")


def _rules() -> list[tuple[str, str, list[Statement]]]:
    """(chain, what for, the rule) in order."""
    here, there = meta("iifname"), meta("oifname")
    both: Statement = {"concat": [here, there]}
    known = match({"ct": {"key": "state"}}, ["established", "related"], "in")
    found: list[tuple[str, str, list[Statement]]] = [
        # Frames inside one bridge come by here only where br_netfilter is loaded.
        ("forward", "neighbours on one bridge", [match(both, "@within"), COUNTER, {"accept": None}]),
        ("forward", "no way out of an internal network", [match(here, "@internal"), COUNTER, {"drop": None}]),
        ("forward", "and none in", [match(there, "@internal"), COUNTER, {"drop": None}]),
        ("forward", "answers", [match(there, "@bridges"), known, COUNTER, {"accept": None}]),
        ("forward", "published ports", [match(there, "@bridges"), DNATED, COUNTER, {"accept": None}]),
        # Whoever is not on the bridge begins no talk with a container: another network's neither.
        ("forward", "isolation", [match(there, "@bridges"), COUNTER, {"drop": None}]),
    ]
    for protocol, sources in (("ip", "@sources4"), ("ip6", "@sources6")):
        ours = match(payload(protocol, "saddr"), sources)
        # Bounded by source and by way out: an unbounded masquerade breaks the machine's own name service.
        leaving = [ours, match(there, "@bridges", "!="), COUNTER, {"masquerade": None}]
        # A container that reaches a published port of its own network must get its answer through us too.
        hairpin = [ours, match(there, "@bridges"), DNATED, COUNTER, {"masquerade": None}]
        found += [("postrouting", "out into the world", leaving), ("postrouting", "hairpin", hairpin)]
    return found


def tables() -> set[tuple[str, str]]:
    """(family, name) of every table of this machine. Raises NotFound without nft."""
    found = nftables.listing("tables")
    return {(item["table"]["family"], item["table"]["name"]) for item in found if "table" in item}


def refuse_foreign(there: set[tuple[str, str]]) -> None:
    """Raises InUse when a table that is not ours has our name."""
    if (FAMILY, TABLE) in there:
        raise InUse(
            f"there is an nft table {FAMILY} {TABLE} that labkit did not make",
            why="its name is the one that labkit's network needs, and no entry in this labkit's ledger owns it",
            next=f"nft list table {FAMILY} {TABLE}; remove or rename it, if it is yours",
        )


def write(plans: Iterable[Plan], *, new: bool) -> None:
    """Make table, rules and sets say what the plans say, in one transaction; published ports stay.

    new -- the first network: a table of our name that is there already is somebody else's.
    Otherwise what somebody has removed meanwhile (nft flush ruleset) is there again afterwards.
    """
    # "create" fails where "add" would join another's.
    commands: list[Statement] = [{"create" if new else "add": {"table": {"family": FAMILY, "name": TABLE}}}]
    commands += [{"add": {"set": {**WHERE, "name": name, **form}}} for name, form in SETS.items()]
    commands += [{"add": {"chain": {**WHERE, "name": name, **hook}}} for name, hook in CHAINS.items()]
    commands += [{"flush": {"set": {**WHERE, "name": name}}} for name in SETS]
    found = _rules()
    commands += [{"flush": {"chain": {**WHERE, "name": name}}} for name in {chain: None for chain, _, _ in found}]
    for chain, comment, rule in found:
        commands.append({"add": {"rule": {**WHERE, "chain": chain, "comment": comment, "expr": rule}}})
    for name, elements in contents(plans).items():
        if elements:
            commands.append({"add": {"element": {**WHERE, "name": name, "elem": elements}}})
    nftables.apply(commands, "cannot write the rules for containers")


def contents(plans: Iterable[Plan]) -> dict[str, list[object]]:
    """{set: its elements}: what the plans of all networks come to."""
    found: dict[str, list[object]] = {name: [] for name in SETS}
    for plan in plans:
        if plan.driver != "bridge":
            continue
        found["bridges"].append(plan.interface)
        found["within"].append({"concat": [plan.interface, plan.interface]})
        if plan.internal:
            found["internal"].append(plan.interface)
            continue
        for name, text in (("sources4", plan.subnet), ("sources6", plan.subnet6)):
            if text:
                subnet = subnets.parse(text)
                found[name].append(network(subnet.address(0), subnet.prefix))
    return found
