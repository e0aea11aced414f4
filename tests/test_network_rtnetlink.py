"""The rtnetlink verbs; the oracle is iproute2."""

from __future__ import annotations

from pathlib import Path

from network_ground import in_machine, needs_root

pytestmark = needs_root


def test_links_are_as_ip_and_bridge_show_them(tmp_path: Path) -> None:
    """Bridge, veth, alias, master, MAC and the peer in another namespace: `ip -j` says the same."""
    in_machine(
        tmp_path,
        """
        pid = new_namespace()
        with Netlink() as netlink:
            rtnetlink.create_bridge(netlink, "b0")
            index = socket.if_nametoindex("b0")
            rtnetlink.set_alias(netlink, index, "ours")
            rtnetlink.add_address(netlink, index, "10.1.2.1", 24)
            rtnetlink.set_up(netlink, index)
            rtnetlink.create_veth(netlink, "v0", "eth0", pid, bytes.fromhex("024200000007"), index)
            ours = {link.name: link for link in rtnetlink.links(netlink)}
            assert ("10.1.2.0", 24) in rtnetlink.destinations(netlink)
        theirs = {link["ifname"]: link for link in ip("addr")}
        assert theirs.keys() == ours.keys() == {"lo", "b0", "v0"}
        for name, link in ours.items():
            assert link.ifindex == theirs[name]["ifindex"]
            assert link.mac == theirs[name]["address"]
            assert link.up == ("UP" in theirs[name]["flags"])
        assert theirs["b0"]["linkinfo"]["info_kind"] == ours["b0"].kind == "bridge"
        assert theirs["b0"]["ifalias"] == ours["b0"].alias == "ours"
        address = theirs["b0"]["addr_info"][0]
        assert (address["local"], address["prefixlen"], address["broadcast"]) == ("10.1.2.1", 24, "10.1.2.255")
        assert theirs["v0"]["master"] == "b0" and ours["v0"].master == index
        assert json.loads(sh("bridge", "-j", "link"))[0]["ifname"] == "v0"
        there = json.loads(sh("nsenter", "-t", str(pid), "-n", "ip", "-j", "link", "show", "eth0"))[0]
        assert there["address"] == "02:42:00:00:00:07"
        assert there["ifindex"] == ours["v0"].peer
        rtnetlink.delete_link_if_there("v0")
        rtnetlink.delete_link_if_there("v0")
        assert "v0" not in sh("ip", "link")
        assert "eth0" not in sh("nsenter", "-t", str(pid), "-n", "ip", "link")
    """,
    )


def test_what_the_kernel_refuses_is_said_in_words(tmp_path: Path) -> None:
    """A second bridge of a name, and a route that leads nowhere: an OSError naming the request."""
    first, second = in_machine(
        tmp_path,
        """
        words = []
        with Netlink() as netlink:
            rtnetlink.create_bridge(netlink, "b0")
            for action in (lambda: rtnetlink.create_bridge(netlink, "b0"),
                           lambda: rtnetlink.add_default_route(netlink, "10.9.9.9")):
                try:
                    action()
                except OSError as error:
                    words.append(str(error))
        say(words)
    """,
    )
    assert "create bridge b0" in first and "File exists" in first
    assert "add a default route by 10.9.9.9" in second and "the kernel says: Nexthop has invalid gateway" in second
