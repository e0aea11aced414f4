"""Every kind of rtnetlink request; the oracle is pyroute2, which speaks to the same kernel by itself."""

from __future__ import annotations

from pathlib import Path

from network_ground import in_machine, needs_root

pytestmark = needs_root

ORACLE = """
from pyroute2 import IPRoute
theirs = IPRoute()

def link(name):
    (found,) = theirs.get_links(ifname=name)
    return found

def info(found, *path):
    for name in path:
        found = found.get_attr(name)
    return found

netlink = Netlink()
pid = new_namespace()
rtnetlink.create_veth(netlink, "d0", "far", os.getpid(), bytes.fromhex("024200000008"), 0)
d0 = socket.if_nametoindex("d0")
rtnetlink.set_up(netlink, socket.if_nametoindex("far"))
"""


def test_devices_are_what_they_were_asked_to_be(tmp_path: Path) -> None:
    """Bridge, veth without a bridge, macvlan in bridge mode: kind, parent, mode, MAC (dummy, ipvlan: tests/guest)."""
    in_machine(
        tmp_path,
        ORACLE
        + """
mac = bytes.fromhex("024200000001")
me = os.getpid()
rtnetlink.create_bridge(netlink, "b0")
rtnetlink.create_veth(netlink, "v0", "v1", me, mac, 0, mtu=1400)
rtnetlink.create_macvlan(netlink, "m0", d0, me, mac)
kinds = {name: info(link(name), "IFLA_LINKINFO", "IFLA_INFO_KIND") for name in ("b0", "v0", "v1", "m0")}
assert kinds == {"b0": "bridge", "v0": "veth", "v1": "veth", "m0": "macvlan"}, kinds
assert info(link("m0"), "IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_MACVLAN_MODE") == "bridge"
assert info(link("m0"), "IFLA_LINK") == d0
assert info(link("m0"), "IFLA_ADDRESS") == info(link("v1"), "IFLA_ADDRESS") == mac.hex(":")
assert info(link("v0"), "IFLA_MTU") == info(link("v1"), "IFLA_MTU") == 1400
ours = rtnetlink.find_link(netlink, "m0")
assert (ours.kind, ours.peer, ours.mac) == ("macvlan", d0, mac.hex(":")), ours
assert rtnetlink.find_link(netlink, "nobody") is None
""",
    )


def test_a_device_is_renamed_resized_and_sent_away(tmp_path: Path) -> None:
    """Down, MTU, MAC, name, bridge, and at last another network namespace under another name."""
    in_machine(
        tmp_path,
        ORACLE
        + """
rtnetlink.create_bridge(netlink, "b0")
b0 = socket.if_nametoindex("b0")
rtnetlink.set_down(netlink, d0)
rtnetlink.set_mtu(netlink, d0, 1280)
rtnetlink.set_mac(netlink, d0, bytes.fromhex("024200000009"))
rtnetlink.rename(netlink, d0, "other")
rtnetlink.set_master(netlink, d0, b0)
seen = link("other")
assert seen["index"] == d0 and not seen["flags"] & 1
assert [info(seen, f"IFLA_{name}") for name in ("MTU", "ADDRESS", "MASTER")] == [1280, "02:42:00:00:00:09", b0]
rtnetlink.set_master(netlink, d0, 0)
assert info(link("other"), "IFLA_MASTER") is None
rtnetlink.move(netlink, d0, pid, name="eth7")
assert "other" not in sh("ip", "link")
there = json.loads(sh("nsenter", "-t", str(pid), "-n", "ip", "-j", "link", "show", "eth7"))[0]
assert (there["mtu"], there["address"]) == (1280, "02:42:00:00:00:09")
""",
    )


def test_ports_of_a_bridge_have_the_flags_that_were_set(tmp_path: Path) -> None:
    """hairpin, isolated, guard, learning and flood, on and off; read back as pyroute2 reads them."""
    in_machine(
        tmp_path,
        ORACLE
        + """
rtnetlink.create_bridge(netlink, "b0")
b0 = socket.if_nametoindex("b0")
rtnetlink.set_up(netlink, b0)
rtnetlink.set_master(netlink, d0, b0)
names = {"hairpin": "MODE", "isolated": "ISOLATED", "guard": "GUARD", "learning": "LEARNING", "flood": "UNICAST_FLOOD"}

def seen():
    data = info(link("d0"), "IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    return {ours for ours, name in names.items() if data.get_attr(f"IFLA_BRPORT_{name}")}

for on in ({"hairpin", "isolated"}, {"learning", "flood"}, {"guard"}, set()):
    rtnetlink.set_port(netlink, d0, **{name: name in on for name in names})
    (port,) = rtnetlink.ports(netlink)
    assert (port.ifindex, port.name, port.bridge, port.state) == (d0, "d0", b0, "forwarding"), port
    assert seen() == port.flags == on, (seen(), port, on)
rtnetlink.set_hairpin(netlink, d0)
assert seen() == {"hairpin"}
""",
    )


def test_counters_are_those_of_the_oracle_and_rise(tmp_path: Path) -> None:
    """After ten datagrams out of a cable: at least ten packets more, and every number equals pyroute2's."""
    in_machine(
        tmp_path,
        ORACLE
        + """
rtnetlink.add_address(netlink, d0, "10.1.2.1", 24)
before = rtnetlink.counters(netlink)[d0]
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(10):
    sender.sendto(b"x" * 100, ("10.1.2.1", 9))  # by lo
rtnetlink.add_neighbour(netlink, d0, "10.1.2.9", bytes.fromhex("024200000002"))
for _ in range(10):
    sender.sendto(b"x" * 100, ("10.1.2.9", 9))
# The device sends on its own (IPv6 looks for routers), so that both must be asked until they agree.
for _ in range(100):
    ours = rtnetlink.counters(netlink)[d0]
    stats = info(link("d0"), "IFLA_STATS64")
    if all(getattr(ours, name) == stats[name] for name in ours._fields):
        break
else:
    raise AssertionError((ours, stats))
assert ours.tx_packets - before.tx_packets >= 10 and ours.tx_bytes - before.tx_bytes >= 10 * 142, (before, ours)
""",
    )


def test_addresses_of_both_families_come_and_go(tmp_path: Path) -> None:
    """IPv4 with its broadcast; IPv6 ready at once, without waiting for duplicates; deleted, they are gone."""
    in_machine(
        tmp_path,
        ORACLE
        + """
def seen():
    return {(info(one, "IFA_ADDRESS"), one["prefixlen"]): one for one in theirs.get_addr(index=d0)}

rtnetlink.add_address(netlink, d0, "10.1.2.1", 24)
rtnetlink.add_address(netlink, d0, "fd00:1:2::1", 64)
both = seen()
assert info(both["10.1.2.1", 24], "IFA_BROADCAST") == "10.1.2.255"
assert info(both["fd00:1:2::1", 64], "IFA_FLAGS") & 0x40 == 0  # IFA_F_TENTATIVE
mine = {one.text for one in rtnetlink.addresses(netlink) if one.ifindex == d0}
assert mine == {f"{address}/{prefix}" for address, prefix in both}, mine
rtnetlink.delete_address(netlink, d0, "10.1.2.1", 24)
rtnetlink.delete_address(netlink, d0, "fd00:1:2::1", 64)
assert {address for address, _ in seen()} == {a for a, _ in both} - {"10.1.2.1", "fd00:1:2::1"}
""",
    )


def test_routes_of_both_families_come_and_go(tmp_path: Path) -> None:
    """By a gateway, out of a device, and the default: pyroute2 sees each, and sees it gone."""
    in_machine(
        tmp_path,
        ORACLE
        + """
def seen():
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for one in theirs.get_routes(family=family, table=254):
            to = f"{info(one, 'RTA_DST')}/{one['dst_len']}" if info(one, "RTA_DST") else "default"
            found.add((to, info(one, "RTA_GATEWAY") or "", info(one, "RTA_OIF")))
    return found

rtnetlink.add_address(netlink, d0, "10.1.2.1", 24)
rtnetlink.add_address(netlink, d0, "fd00:1:2::1", 64)
before = seen()
ways = [("10.7.0.0/16", "10.1.2.9", 0), ("10.8.0.0/16", "", d0), ("default", "10.1.2.9", 0),
        ("fd00:7::/48", "fd00:1:2::9", 0), ("fd00:8::/48", "", d0), ("default", "fd00:1:2::9", 0)]
for to, via, index in ways:
    rtnetlink.add_route(netlink, to, via=via, index=index)
after = seen()
assert after - before == {(to, via, d0) for to, via, _ in ways}, after - before
assert after == {tuple(one) for one in rtnetlink.routes(netlink)}
assert ("10.7.0.0", 16) in rtnetlink.destinations(netlink)
assert ("fd00:7::", 48) in rtnetlink.destinations(netlink, socket.AF_INET6)
for to, via, index in ways:
    rtnetlink.delete_route(netlink, to, via=via, index=index)
assert seen() == before
""",
    )


def test_neighbours_of_both_families_come_and_go(tmp_path: Path) -> None:
    """An entry for good; pyroute2 has the same address, MAC and state; deleted, neither has it."""
    in_machine(
        tmp_path,
        ORACLE
        + """
def seen():
    return {(info(one, "NDA_DST"), info(one, "NDA_LLADDR")) for one in theirs.get_neighbours(ifindex=d0)
            if one["state"] == 0x80}

mac = bytes.fromhex("024200000009")
pairs = {("10.1.2.9", mac.hex(":")), ("fd00:1:2::9", mac.hex(":"))}
for address, _ in pairs:
    rtnetlink.add_neighbour(netlink, d0, address, mac)
assert seen() == pairs
assert {(one.address, one.mac) for one in rtnetlink.neighbours(netlink) if one.state == "permanent"} == pairs
for address, _ in pairs:
    rtnetlink.delete_neighbour(netlink, d0, address)
assert seen() == set()
""",
    )
