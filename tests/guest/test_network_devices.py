"""The kinds of devices that only the lab's machine is sure to have; the oracle is iproute2."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_ground import in_machine

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest


def test_dummy_macvlan_and_ipvlan_are_what_they_were_asked_to_be(tmp_path: Path) -> None:
    """Kind, parent, mode and MAC, each born in another network namespace."""
    in_machine(
        tmp_path,
        """
        pid = new_namespace()
        mac = bytes.fromhex("024200000001")
        with Netlink() as netlink:
            for name in ("d0", "d1"):
                rtnetlink.create_dummy(netlink, name)
            d0, d1 = (socket.if_nametoindex(name) for name in ("d0", "d1"))
            rtnetlink.create_macvlan(netlink, "m0", d0, pid, mac)
            rtnetlink.create_ipvlan(netlink, "i0", d1, pid)
        assert {link["ifname"]: link["linkinfo"]["info_kind"] for link in ip("link") if "linkinfo" in link} == {
            "d0": "dummy", "d1": "dummy"}
        words = ["nsenter", "-t", str(pid), "-n", "ip", "-j", "-d", "link"]
        there = {link["ifname"]: link for link in json.loads(sh(*words))}
        assert there["m0"]["address"] == mac.hex(":") and there["m0"]["link_index"] == d0
        assert there["m0"]["linkinfo"]["info_data"]["mode"] == "bridge"
        assert there["i0"]["link_index"] == d1 and there["i0"]["linkinfo"]["info_data"]["mode"] == "l2"
    """,
    )


def test_containers_of_an_ipvlan_network_reach_one_another(tmp_path: Path) -> None:
    """Two containers on one parent, with its MAC and addresses of their own; given back, no device is left."""
    seen, macs = in_machine(
        tmp_path,
        """
        from labkit.network import networks
        before = census()
        with Netlink() as netlink:
            rtnetlink.create_dummy(netlink, "par0")
            rtnetlink.set_up(netlink, socket.if_nametoindex("par0"))
        networks.create(networks.Wish("lan", "ipvlan", ("10.66.0.0/24",), options={"parent": "par0"}))
        pids, ends = [new_namespace(), new_namespace()], []
        for number, pid in enumerate(pids):
            ends.append(networks.connect("lan", f"{number}a" * 32, pid))
        serve(pids[0], 80)
        macs = {json.loads(sh("nsenter", "-t", str(pid), "-n", "ip", "-j", "link", "show", "eth0"))[0]["address"]
                for pid in pids} | {ip("link", "show", "par0")[0]["address"]}
        say([seen_from(pids[1], ends[0].address, 80) == ends[1].address, len(macs)])
        for number, pid in enumerate(pids):
            networks.disconnect("lan", f"{number}a" * 32, pid)
        networks.remove("lan")
        sh("ip", "link", "del", "par0")
        assert census() == before and not list(all_ledgers())
    """,
    )
    assert seen and macs == 1
