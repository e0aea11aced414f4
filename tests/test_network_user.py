"""Networks that people make, with `labkit` as people use it: names, isolation, ports, IPv6, what is refused."""

from __future__ import annotations

import json
import re
import sys

import pytest
from runtime_ground import IMAGE, Machine, in_a_machine, until

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine


def network(machine: Machine, *words: str) -> str:
    """`labkit network WORDS`; what it printed."""
    done = machine.labkit("network", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(machine: Machine, name: str, *options: str, command: str = "sleep 999") -> None:
    """A container in the background."""
    done = machine.labkit("run", "-d", "--rm", "--name", name, *options, IMAGE, "sh", "-c", command)
    assert done.returncode == 0, done.stderr


def inside(machine: Machine, name: str, script: str) -> tuple[int, str]:
    """A shell script in a running container: its status, and what it printed."""
    done = machine.labkit("exec", name, "sh", "-c", script)
    return done.returncode, done.stdout.strip()


def refused(machine: Machine, *words: str) -> str:
    """What `labkit WORDS` says when it refuses; it says what, why or next, and leaves nothing behind."""
    before = machine.census()
    done = machine.labkit(*words)
    assert done.returncode in (1, 125) and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"^  (why|next): ", done.stderr, re.MULTILINE), done.stderr
    assert machine.census() == before
    return done.stderr


def test_create_ls_inspect_rm(machine: Machine) -> None:
    """A network is listed, described in docker's words, is there in the kernel, and goes with rm alone."""
    assert (
        network(machine, "create", "--subnet", "10.55.0.0/24", "--gateway", "10.55.0.9", "--ipv6", "shop") == "shop\n"
    )
    start(machine, "web", "--network", "shop", "--network-alias", "www")
    ((told,), links) = (
        json.loads(network(machine, "inspect", "shop")),
        json.loads(machine.sh("ip", "-j", "addr", "show", "shop").stdout),
    )
    assert (told["Name"], told["Driver"], told["EnableIPv6"], told["Internal"]) == ("shop", "bridge", True, False)
    assert told["IPAM"]["Config"][0] == {"Subnet": "10.55.0.0/24", "Gateway": "10.55.0.9"}
    (member,) = told["Containers"].values()
    assert (member["Name"], member["Aliases"], member["IPv4Address"]) == ("web", ["www"], "10.55.0.1/24")
    addresses = {one["local"] for one in links[0]["addr_info"]}
    assert {"10.55.0.9", told["IPAM"]["Config"][1]["Gateway"]} <= addresses
    assert re.search(r"^shop +bridge +10\.55\.0\.0/24 +fd\S+::/64 +1$", network(machine, "ls"), re.MULTILINE)
    assert "containers are on it: web" in refused(machine, "network", "rm", "shop")
    machine.labkit("rm", "--force", "web")
    assert network(machine, "ls", "-q") == "shop\n"
    assert network(machine, "rm", "shop") == "shop\n"
    assert network(machine, "ls", "-q") == ""


def test_containers_of_two_networks_do_not_reach_one_another(machine: Machine) -> None:
    """By IPv4 and IPv6: a neighbour answers, the container of another network does not, whatever its address."""
    for name in ("one", "two"):
        network(machine, "create", "--ipv6", name)
        start(machine, f"{name}-a", "--network", name)
        start(machine, f"{name}-b", "--network", name)
    members = {
        member["Name"]: member
        for name in ("one", "two")
        for member in json.loads(network(machine, "inspect", name))[0]["Containers"].values()
    }
    try:
        for family in ("IPv4Address", "IPv6Address"):
            here = members["one-b"][family].partition("/")[0]
            there = members["two-a"][family].partition("/")[0]
            assert inside(machine, "one-a", f"ping -c 1 -W 2 {here}")[0] == 0, family
            assert inside(machine, "one-a", f"ping -c 1 -W 1 {there}")[0] != 0, family
    finally:
        machine.labkit("rm", "--force", *members)
        network(machine, "rm", "one", "two")


def test_an_internal_network_has_no_way_out(machine: Machine) -> None:
    """No default route inside; neighbours reach one another all the same."""
    network(machine, "create", "--internal", "cellar")
    start(machine, "one-a", "--network", "cellar", "--ip", "172.30.0.7")
    start(machine, "one-b", "--network", "cellar")
    try:
        assert "it is internal" in refused(machine, "run", "--network", "cellar", "-p", "80:80", IMAGE, "true")
        assert "default" not in inside(machine, "one-b", "ip route")[1]
        assert inside(machine, "one-b", "ping -c 1 -W 2 172.30.0.7")[0] == 0
    finally:
        machine.labkit("rm", "--force", "one-a", "one-b")
        network(machine, "rm", "cellar")


def test_a_running_container_is_connected_and_taken_off(machine: Machine) -> None:
    """A second device appears and goes, with the names of that network; one way out remains."""
    network(machine, "create", "side")
    start(machine, "other", "--network", "side")
    start(machine, "box")
    try:
        before = inside(machine, "box", "ip -o -4 addr; ip route; cat /etc/resolv.conf")[1]
        network(machine, "connect", "--ip", "172.30.0.77", "side", "box")
        now = inside(machine, "box", "ip -o -4 addr; ip route")[1]
        assert "eth1" in now and "172.30.0.77/24" in now and now.count("default") == 1
        assert inside(machine, "box", "ping -c 1 -W 2 other")[0] == 0
        assert inside(machine, "other", "ping -c 1 -W 2 box")[0] == 0
        assert "on network side already" in refused(machine, "network", "connect", "side", "box")
        network(machine, "disconnect", "side", "box")
        assert inside(machine, "box", "ip -o -4 addr; ip route; cat /etc/resolv.conf")[1] == before
        assert "it is on labkit0" in refused(machine, "network", "disconnect", "side", "box")
    finally:
        machine.labkit("rm", "--force", "box", "other")
        network(machine, "rm", "side")


def test_taken_off_the_network_that_led_out_it_goes_out_by_the_next(machine: Machine) -> None:
    """Of those that are left, in order of name, the first that is not internal; in both families; and it answers."""
    for name, options in (("a", ["--ipv6"]), ("b", ["--internal", "--ipv6"]), ("c", ["--ipv6"]), ("d", [])):
        network(machine, "create", *options, name)
    start(machine, "box", "--network", "a")
    try:
        for name in ("d", "c", "b"):
            network(machine, "connect", name, "box")
        network(machine, "disconnect", "d", "box")  # not its way out: nothing is to be done
        one = json.loads(network(machine, "inspect", "a"))[0]["IPAM"]["Config"]
        ways = "ip route; ip -6 route"
        assert all(f"default via {each['Gateway']} " in inside(machine, "box", ways)[1] for each in one)
        network(machine, "disconnect", "a", "box")
        two = json.loads(network(machine, "inspect", "c"))[0]["IPAM"]["Config"]
        now = inside(machine, "box", ways)[1]
        assert all(f"default via {each['Gateway']} " in now for each in two) and now.count("default") == 2
        assert inside(machine, "box", f"ping -c 1 -W 2 {two[0]['Gateway']}")[0] == 0
        network(machine, "disconnect", "c", "box")
        assert "default" not in inside(machine, "box", ways)[1]  # b is internal
    finally:
        machine.labkit("rm", "--force", "box")
        network(machine, "rm", "a", "b", "c", "d")


def test_a_macvlan_network_hangs_on_a_device_of_the_machine(machine: Machine) -> None:
    """Two containers with MACs of their own on the parent reach one another; the host does not reach them."""
    machine.sh("ip", "link", "add", "par0", "type", "veth", "peer", "name", "par1")
    machine.sh("ip", "link", "set", "par0", "up")
    machine.sh("ip", "link", "set", "par1", "up")
    try:
        network(machine, "create", "-d", "macvlan", "--subnet", "10.66.0.0/24", "-o", "parent=par0", "lan")
        start(machine, "one-a", "--network", "lan")
        start(machine, "one-b", "--network", "lan")
        assert inside(machine, "one-b", "ping -c 1 -W 2 10.66.0.2")[0] == 0
        assert machine.sh("ip", "route", "get", "10.66.0.2").returncode != 0
        network(machine, "disconnect", "lan", "one-b")
        assert "eth0" not in inside(machine, "one-b", "ip link")[1]
        machine.labkit("rm", "--force", "one-a", "one-b")
        network(machine, "rm", "lan")
    finally:
        machine.sh("ip", "link", "del", "par0")


def test_a_container_shares_anothers_network(machine: Machine) -> None:
    """--network container:NAME: the same namespace, host name and name files; a port on its loopback is there."""
    start(machine, "owner", "--hostname", "lord", command="nc -l -p 7777 -e echo hello; sleep 999")
    try:
        words = ["run", "--rm", "--network", "container:owner", IMAGE, "sh", "-c"]
        script = "readlink /proc/self/ns/net; hostname; cat /etc/hosts; nc 127.0.0.1 7777"
        done = machine.labkit(*words, script)
        assert done.returncode == 0, done.stderr
        expected = inside(machine, "owner", "readlink /proc/self/ns/net; hostname; cat /etc/hosts")[1]
        assert done.stdout.strip() == expected + "\nhello"
        assert "the other container" in refused(machine, "run", "-p", "80:80", *words[2:], "true")
    finally:
        machine.labkit("rm", "--force", "owner")


BAD = {
    "a name of 20 characters": (["network", "create", "a" * 20], "IFNAMSIZ"),
    "a name with a slash": (["network", "create", "a/b"], "cannot be a network's name"),
    "a reserved name": (["network", "create", "host"], "meaning of its own"),
    "the default's name": (["network", "create", "labkit0"], "meaning of its own"),
    "a device's name": (["network", "create", "lo"], "did not make"),
    "no driver": (["network", "create", "-d", "overlay", "x"], "driver"),
    "no subnet": (["network", "create", "--subnet", "10.5.0.0", "x"], "--subnet"),
    "an address inside": (["network", "create", "--subnet", "10.5.0.1/24", "x"], "10.5.0.0/24"),
    "a small subnet": (["network", "create", "--subnet", "10.5.0.0/31", "x"], "too small"),
    "two subnets": (["network", "create", "--subnet", "10.5.0.0/24", "--subnet", "10.6.0.0/24", "x"], "one subnet"),
    "a gateway elsewhere": (["network", "create", "--subnet", "10.5.0.0/24", "--gateway", "10.6.0.1", "x"], "10.6.0.1"),
    "an overlap with a route": (["network", "create", "--subnet", "10.77.0.0/16", "x"], "a route to 10.77.5.0/24"),
    "no parent": (["network", "create", "-d", "macvlan", "x"], "parent=eth0"),
    "a parent of a name too long": (["network", "create", "-d", "ipvlan", "-o", "parent=" + "e" * 20, "x"], "eeee"),
    "a network with a path for a name": (["run", "--network", "../../etc/x", IMAGE, "true"], "there is no network"),
    "a network with an endless name": (["run", "--network", "n" * 300, IMAGE, "true"], "there is no network"),
    "a parent that is not there": (["network", "create", "-d", "ipvlan", "-o", "parent=eth9", "x"], "eth9"),
    "an unknown option": (["network", "create", "-o", "colour=red", "x"], "colour"),
    "rm of none": (["network", "rm", "nowhere"], "nowhere"),
    "inspect of none": (["network", "inspect", "nowhere"], "nowhere"),
    "connect of none": (["network", "connect", "nowhere", "nobody"], "nobody"),
    "no verb": (["network", "paint"], "paint"),
    "run on none": (["run", "--network", "nowhere", IMAGE, "true"], "nowhere"),
    "run in none's": (["run", "--network", "container:nobody", IMAGE, "true"], "nobody"),
    "an alias without names": (["run", "--network-alias", "x", IMAGE, "true"], "name service"),
    "a port without a network": (["run", "--network", "none", "-p", "80:80", IMAGE, "true"], "nothing leads in"),
    "an address without a network": (["run", "--network", "host", "--ip", "10.0.0.1", IMAGE, "true"], "--ip"),
    "an address elsewhere": (["run", "--ip", "10.0.0.1", IMAGE, "true"], "none of the network's"),
    "IPv6 where there is none": (["run", "--ip6", "fd00::1", IMAGE, "true"], "no IPv6"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused_and_leaves_nothing(machine: Machine, case: str) -> None:
    """A message that names the thing, with a cause or a next step; census, plans and ledgers as before."""
    words, said = BAD[case]
    machine.sh("ip", "link", "add", "far0", "type", "veth", "peer", "name", "far1")
    machine.sh("ip", "addr", "add", "10.77.5.1/24", "dev", "far0")
    machine.sh("ip", "link", "set", "far0", "up")
    try:
        assert said in refused(machine, *words)
    finally:
        machine.sh("ip", "link", "del", "far0")


def test_a_network_survives_its_containers_and_ends_with_reset(machine: Machine) -> None:
    """It stays while nobody is on it; `labkit reset` gives bridge, rules and forwarding back."""
    before = machine.census()
    network(machine, "create", "--ipv6", "shop")
    assert machine.labkit("run", "--rm", "--network", "shop", IMAGE, "true").returncode == 0
    assert "shop" in network(machine, "ls", "-q")
    assert machine.labkit("reset").returncode == 0
    assert machine.census() == before
    assert network(machine, "ls", "-q") == ""


def test_without_nft_the_program_is_named(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No nft on PATH: its package is named, and nothing was made."""
    empty = tmp_path_factory.mktemp("path")
    (empty / "ip").symlink_to("/usr/sbin/ip")
    before = machine.census()
    words = ["env", f"PATH={empty}", sys.executable, "-m", "labkit"]
    for arguments in (["network", "create", "shop"], ["run", "--rm", IMAGE, "true"]):
        done = machine.sh(*words, *arguments)
        assert done.returncode == 125 and "apt-get install nftables" in done.stderr, done.stderr
    assert machine.census() == before


def test_a_lost_interface_is_found_again(machine: Machine) -> None:
    """Somebody deletes the bridge of a network: the next container makes it anew, with the same subnet."""
    network(machine, "create", "--subnet", "10.55.0.0/24", "shop")
    machine.sh("ip", "link", "del", "shop")
    try:
        start(machine, "box", "--network", "shop")
        assert until(lambda: inside(machine, "box", "ping -c 1 -W 2 10.55.0.1")[0] == 0)
    finally:
        machine.labkit("rm", "--force", "box")
        network(machine, "rm", "shop")
