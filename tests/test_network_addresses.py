"""Address management: no address twice, none lost, and clear words when there are none left."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_ground import in_machine, needs_root

from labkit.errors import BadInput, InUse, LabError
from labkit.network import subnets

SMALL = settings(max_examples=80, derandomize=True, deadline=None)
NETWORKS4 = st.builds(
    lambda base, prefix: ipaddress.IPv4Network((base, prefix), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
)
NETWORKS6 = st.builds(
    lambda base, prefix: ipaddress.IPv6Network((base, prefix), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(1, 126),
)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@SMALL
@given(st.one_of(NETWORKS4, NETWORKS6), st.one_of(NETWORKS4, NETWORKS6), st.integers(0, 3))
def test_subnets_are_those_of_the_module_ipaddress(one: Network, other: Network, number: int) -> None:
    """Reading, writing, membership, overlap and the n-th address agree with the standard library's."""
    mine, theirs = subnets.parse(str(one)), subnets.parse(str(other))
    # inet_ntop writes ::0.1.0.0 where the module writes ::1:0.
    assert ipaddress.ip_network(str(mine)) == one and mine.size == one.num_addresses
    assert ipaddress.ip_address(mine.address(number)) == one[number]
    assert mine.holds(str(one[number])) and mine.holds(str(other[0])) == (other[0] in one)
    assert mine.overlaps(theirs) == theirs.overlaps(mine)
    assert mine.overlaps(theirs) == (one.version == other.version and one.overlaps(other))  # type: ignore[arg-type]


NO_SUBNETS = "x 10.0.0.0 10.0.0.0/ 10.0.0.0/x 10.0.0.0/33 10.0.0.1/24 ::/129 10.0.0.0/-1 10.0.0.0/0 10.0.0.0/31"


@pytest.mark.parametrize("text", ["", *NO_SUBNETS.split(), "fd00::1/64", "10.0.0/24", "192.0.2.4/24/5"])
def test_what_is_no_subnet_is_refused(text: str) -> None:
    """BadInput that repeats the text."""
    with pytest.raises(BadInput) as caught:
        subnets.parse(text)
    assert text in caught.value.what


def test_a_full_subnet_says_so() -> None:
    """The last address is given out, the broadcast address is not; then the message has size and network."""
    small = subnets.parse("10.0.0.0/29")
    taken: set[str] = set()
    for _ in range(6):
        taken.add(subnets.next_address(small, taken, "shop"))
    assert taken == {f"10.0.0.{number}" for number in range(1, 7)}
    with pytest.raises(LabError, match="network shop has no address left") as caught:
        subnets.next_address(small, taken, "shop")
    assert "all 6 of 10.0.0.0/29" in caught.value.why and caught.value.next


def test_an_address_that_is_asked_for_must_be_free_and_inside() -> None:
    """The first and the last are refused, so is one elsewhere, a taken one (with its holder) and no address at all."""
    subnet = subnets.parse("10.0.0.0/24")
    assert subnets.wanted(subnet, "10.0.0.7", {}, "--ip") == "10.0.0.7"
    for address in ("10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::1", "seven"):
        with pytest.raises(BadInput, match=address):
            subnets.wanted(subnet, address, {}, "--ip")
    with pytest.raises(InUse) as caught:
        subnets.wanted(subnet, "10.0.0.7", {"10.0.0.7": "container web"}, "--ip")
    assert "container web" in caught.value.why
    assert subnets.wanted(subnets.parse("fd00::/64"), "fd00:0::0007", {}, "--ip6") == "fd00::7"


def test_with_every_candidate_routed_the_message_says_so() -> None:
    """No free candidate: how many were tried, and the option that helps."""
    with pytest.raises(LabError) as caught:
        subnets.choose([subnets.parse(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")], [])
    assert "--subnet" in caught.value.next
    assert subnets.choose([subnets.Subnet(socket.AF_INET, 0, 32)], []) == subnets.parse("172.30.0.0/24")


USER = """
from labkit.network import networks, plan

def make(name, **options):
    return networks.create(networks.Wish(name, **options))
"""


class TestOnAMachine:
    """With a kernel: each on a machine of its own."""

    pytestmark = needs_root

    def test_exhaustion_leaves_nothing_and_a_freed_address_is_given_again(self, tmp_path: Path) -> None:
        """A /29 takes five containers beside the gateway; the sixth is refused without a trace, until one goes."""
        first, message, again = in_machine(
            tmp_path,
            USER
            + """
before = census()
make("tiny", subnets=("10.9.0.0/29",))
pid = new_namespace()
def attach(number):
    identifier = f"{number:02}" * 32
    try:
        return bridge.attach(identifier, new_namespace(), Ledger(identifier), "tiny").address
    except LabError as error:
        return str(error)
given = [attach(number) for number in range(5)]
full = census()
message = attach(5)
assert census() == full and not Ledger("05" * 32).entries()
bridge.detach("03" * 32, Ledger("03" * 32), "tiny")
say([given, message, attach(6)])
for number in range(7):
    bridge.detach(f"{number:02}" * 32, Ledger(f"{number:02}" * 32), "tiny")
networks.remove("tiny")
assert census() == before and not list(all_ledgers())
""",
        )
        assert len(set(first)) == 5 and again == first[3]
        assert "network tiny has no address left" in message and "next:" in message

    @pytest.mark.parametrize("cycles", [30, pytest.param(1000, marks=pytest.mark.long)])
    def test_many_connects_and_disconnects_leak_nothing(self, tmp_path: Path, cycles: int) -> None:
        """After so many cycles on a network with a /28: links, rules, plans, ledgers and open files as before."""
        in_machine(
            tmp_path,
            USER
            + f"""
make("loop", subnets=("10.9.0.0/28",), ipv6=True)
first = new_namespace()
identifier = "c1" * 32
networks.connect("loop", identifier, first)
networks.disconnect("loop", identifier, first)
before = census(), sorted(os.listdir("/proc/self/fd")), sorted(p.name for p in (plan.folder()).rglob("*"))
inner = sh("nsenter", "-t", str(first), "-n", "ip", "-br", "addr")
for number in range({cycles}):
    endpoint = networks.connect("loop", identifier, first, label="web")
    assert endpoint.address == "10.9.0.2", (number, endpoint)
    networks.disconnect("loop", identifier, first)
assert (census(), sorted(os.listdir("/proc/self/fd")), sorted(p.name for p in (plan.folder()).rglob("*"))) == before
assert sh("nsenter", "-t", str(first), "-n", "ip", "-br", "addr") == inner
assert plan.load("loop").containers == {{}} and not Ledger(identifier).entries()
assert len(Ledger("network-loop").file.read_text().splitlines()) < 200
""",
            timeout=900,
        )

    def test_processes_that_create_at_once_get_different_networks(self, tmp_path: Path) -> None:
        """Four processes make three networks each and attach to them: no subnet, no address, no rule twice."""
        in_machine(
            tmp_path,
            USER
            + """
before = census()
CODE = '''
import sys, os
from labkit.kernel.ledger import Ledger
from labkit.network import bridge, networks
who = int(sys.argv[1])
for number in range(3):
    networks.create(networks.Wish(f"net{who}{number}"))
for number, pid in enumerate(sys.argv[2:]):
    identifier = f"{who}{number}" * 32
    bridge.attach(identifier, int(pid), Ledger(identifier))  # all of them on the default network
'''
pids = [[str(new_namespace()) for _ in range(3)] for _ in range(4)]
children = [subprocess.Popen([sys.executable, "-c", CODE, str(who), *pids[who]]) for who in range(4)]
assert [child.wait() for child in children] == [0] * 4
plans = plan.load_all()
assert len(plans) == 13 and len({one.subnet for one in plans}) == 13
default = plan.load("labkit0")
assert len(default.containers) == 12 and len({one.v4 for one in default.containers.values()}) == 12
sets = {item["set"]["name"]: item["set"].get("elem") for item in nftables.ruleset("inet", "labkit") if "set" in item}
assert sorted(sets["bridges"]) == sorted(one.name for one in plans)
assert len(sets["sources4"]) == 13
reset()
assert census() == before and not list(all_ledgers())
""",
        )
