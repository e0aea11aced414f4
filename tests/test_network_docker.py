"""Beside dockerd: with its forward policy at drop, our containers get out, and Docker's rules stay as they were.

The rules are those that dockerd writes through iptables (moby, bridge driver), in a network namespace of
the test; a real dockerd is met in tests/guest.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from network_ground import in_machine, needs_root

pytestmark = needs_root

# What dockerd does at its start, and for its default bridge; `end` is a container's place on it.
DOCKER = """
def docker(program):
    for rule in ('''-N DOCKER-USER
-N DOCKER-FORWARD
-P FORWARD DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-USER -j RETURN
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-FORWARD -i docker0 -o docker0 -j ACCEPT''').splitlines():
        sh(program, "-w", *rule.split())

def docker0():
    sh("ip", "link", "add", "docker0", "type", "bridge")
    sh("ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
    sh("ip", "link", "set", "docker0", "up")

def rules():
    return {program: sh(program, "-w", "-S") for program in ("iptables", "ip6tables")}

there = outside()
serve(there, 9000)
pid = new_namespace()
identifier = "c1" * 32
ledger = Ledger(identifier)
"""


def test_a_forward_policy_of_drop_stops_whoever_has_no_place_in_dockers_chain(tmp_path: Path) -> None:
    """The premise: with our accept in another table alone, and Docker's drop, nothing gets out."""
    words = in_machine(
        tmp_path,
        DOCKER
        + """
from labkit.network import docker_user
docker_user.let_through = lambda *_: None
docker("iptables")
endpoint = bridge.attach(identifier, pid, ledger)
configure(pid, endpoint)
say(seen_from(pid, "10.99.0.2", 9000))
""",
    )
    assert words == ""


@pytest.mark.parametrize("first", ["dockerd", "labkit"])
def test_containers_get_out_beside_dockerd(tmp_path: Path, first: str) -> None:
    """Whoever was there first: out, and by a published port in; afterwards Docker's rules are as it wrote them."""
    seen = in_machine(
        tmp_path,
        f"first = {first!r}"
        + DOCKER
        + """
docker0()
if first == "dockerd":
    docker("iptables")
else:
    other, second = new_namespace(), Ledger("d2" * 32)
    bridge.attach("d2" * 32, other, second)
    docker("iptables")
before = rules() if first == "dockerd" else None
endpoint = bridge.attach(identifier, pid, ledger)
configure(pid, endpoint)
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
serve(pid, 80)
say([seen_from(pid, "10.99.0.2", 9000), seen_from(there, "10.99.0.1", 8080)])
ports.unpublish(identifier, ledger)
bridge.detach(identifier, ledger)
if first == "labkit":
    assert "labkit" in rules()["iptables"]  # the network stays for the other container
    bridge.detach("d2" * 32, second)
assert "labkit" not in rules()["iptables"]
assert before is None or rules() == before
assert not list(all_ledgers())
""",
    )
    assert seen == ["10.99.0.1", "10.99.0.2"]


def test_dockers_own_networks_stay_closed_to_ours(tmp_path: Path) -> None:
    """A container of Docker's, with no published port, cannot be reached through the way that we open."""
    seen = in_machine(
        tmp_path,
        DOCKER
        + """
docker0()
docker("iptables")
theirs = new_namespace()
sh("ip", "link", "add", "veth1", "type", "veth", "peer", "name", "eth0", "netns", str(theirs))
sh("ip", "link", "set", "veth1", "master", "docker0", "up")
for words in ("addr add 172.17.0.2/16 dev eth0", "link set eth0 up", "route add default via 172.17.0.1"):
    sh("nsenter", "-t", str(theirs), "-n", "ip", *words.split())
serve(theirs, 80)
endpoint = bridge.attach(identifier, pid, ledger)
configure(pid, endpoint)
serve(pid, 81)
say([seen_here("172.17.0.2", 80), seen_from(pid, "172.17.0.2", 80), seen_from(theirs, endpoint.address, 81)])
""",
    )
    assert seen == ["172.17.0.1", "", ""]


def test_ipv6_gets_out_beside_dockerd(tmp_path: Path) -> None:
    """ip6tables has a policy and a chain of its own: an IPv6 neighbour answers through both."""
    seen = in_machine(
        tmp_path,
        DOCKER
        + """
from labkit.network import networks
docker0()
docker("iptables")
docker("ip6tables")
before = rules()
for who, words in ((os.getpid(), "addr add fd99::1/64 dev out0 nodad"), (there, "addr add fd99::2/64 dev eth0 nodad")):
    sh("nsenter", "-t", str(who), "-n", "ip", *words.split())
networks.create(networks.Wish("six", ipv6=True))
endpoint = bridge.attach(identifier, pid, ledger, "six")
configure(pid, endpoint)
code = SERVER.replace("PORT", "9001").replace('"0.0.0.0", 9001)', '"::", 9001), family=socket.AF_INET6')
server = within(there, code)
server.stdout.readline()
say([seen_from(pid, "fd99::2", 9001)])
bridge.detach(identifier, ledger, "six")
networks.remove("six")
assert rules() == before and not list(all_ledgers())
""",
    )
    assert seen == ["fd99::1"]


def test_without_docker_no_table_is_made_by_looking(tmp_path: Path) -> None:
    """On a machine without Docker's chain, neither iptables variant has made a table by our question."""
    in_machine(
        tmp_path,
        """
pid = new_namespace()
bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
assert sh("nft", "list", "tables").split() == ["table", "inet", "labkit"]
names = Path("/proc/net/ip_tables_names")
assert not names.exists() or "filter" not in names.read_text()
""",
    )
