"""Top floor: probes of the network: veth, bridge, nftables, in a network namespace of their own.

Owns: making each through the kit's own rtnetlink and nftables, and reading it back.

Read: veth(4), ip-link(8), libnftables-json(5).
"""

from __future__ import annotations

import os

from labkit.errors import LabError
from labkit.kernel import nftables, rtnetlink
from labkit.kernel.netlink import Netlink
from labkit.lab.doctor_probes import Probe, Seen
from labkit.lab.doctor_probes_namespaces import fence, judged, refused

MAC = bytes.fromhex("020000000001")


def veth() -> dict[str, Seen]:
    """A pair whose ends name each other."""
    try:
        in_user = fence("net")
        with Netlink() as netlink:
            rtnetlink.create_veth(netlink, "end0", "end1", os.getpid(), MAC, 0)
            ends = {link.name: link for link in rtnetlink.links(netlink)}
    except OSError as error:
        return {"veth": refused(error)}
    tied = ends["end0"].peer == ends["end1"].ifindex and ends["end1"].peer == ends["end0"].ifindex
    return {"veth": judged(in_user, "made a pair") if tied else Seen("missing", "the two ends are not a pair")}


def bridge() -> dict[str, Seen]:
    """A bridge with one end of a veth pair as its port."""
    try:
        in_user = fence("net")
        with Netlink() as netlink:
            rtnetlink.create_bridge(netlink, "bridge0")
            index = next(link.ifindex for link in rtnetlink.links(netlink) if link.name == "bridge0")
            rtnetlink.create_veth(netlink, "port0", "end0", os.getpid(), MAC, index)
            ports = [link.name for link in rtnetlink.links(netlink) if link.master == index]
    except OSError as error:
        return {"bridge": refused(error)}
    return {"bridge": judged(in_user, "made one with a port") if ports == ["port0"] else Seen("missing", "no port")}


def nft() -> dict[str, Seen]:
    """A table whose chain masquerades, written by nft and listed again."""
    chain = {"family": "ip", "table": "doctor", "name": "post"}
    hook = {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    source = nftables.match(nftables.payload("ip", "saddr"), nftables.network("10.0.0.0", 24))
    rule = {"family": "ip", "table": "doctor", "chain": "post", "expr": [source, {"masquerade": None}]}
    commands: list[nftables.Statement] = [
        {"add": {"table": {"family": "ip", "name": "doctor"}}},
        {"add": {"chain": chain | hook}},
        {"add": {"rule": rule}},
    ]
    try:
        in_user = fence("net")
        nftables.apply(commands, "cannot make a table with masquerade")
        rules = [item["rule"] for item in nftables.ruleset("ip", "doctor") if "rule" in item]
    except OSError as error:
        return {"nftables": refused(error)}
    except LabError as error:
        return {"nftables": Seen("missing", error.why or error.what, error.next)}
    there = any("masquerade" in statement for rule in rules for statement in rule["expr"])
    return {"nftables": judged(in_user, "made a table with masquerade") if there else Seen("missing", "no rule")}


PROBES = {
    "nftables": Probe(("nftables",), nft),
    "veth": Probe(("veth",), veth),
    "bridge": Probe(("bridge",), bridge),
}
