"""A bridge network: reach, bounds, what it refuses, and that all of it is given back."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_ground import in_machine, needs_root

pytestmark = needs_root

CENSUS = """
before = census()
pid = new_namespace()
"""


def test_a_container_reaches_the_gateway_and_beyond(tmp_path: Path) -> None:
    """From the container: the bridge's address answers, and a neighbour sees this machine's address."""
    seen = in_machine(
        tmp_path,
        CENSUS
        + """
there = outside()
serve(there, 9000)
serve(os.getpid(), 9001)
endpoint = bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
configure(pid, endpoint)
say([endpoint.address, endpoint.gateway, seen_from(pid, endpoint.gateway, 9001), seen_from(pid, "10.99.0.2", 9000)])
""",
    )
    address, gateway, by_gateway, by_neighbour = seen
    assert address != gateway
    assert by_gateway == address
    assert by_neighbour == "10.99.0.1"


def test_two_containers_see_each_others_own_addresses(tmp_path: Path) -> None:
    """Each gets an address of its own, and traffic on the bridge is not masqueraded."""
    first, second, seen = in_machine(
        tmp_path,
        CENSUS
        + """
other = new_namespace()
one = bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
two = bridge.attach("d2" * 32, other, Ledger("d2" * 32))
configure(pid, one)
configure(other, two)
serve(other, 80)
say([one.address, two.address, seen_from(pid, two.address, 80)])
""",
    )
    assert first != second
    assert seen == first


def test_masquerade_is_bounded(tmp_path: Path) -> None:
    """Every masquerade rule names the containers' own subnets and our bridges; no other rule set exists."""
    base, rules = in_machine(
        tmp_path,
        CENSUS
        + """
bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
say([bridge.subnet(), json.loads(sh("nft", "-j", "list", "ruleset"))["nftables"]])
""",
    )
    tables = {(item["table"]["family"], item["table"]["name"]) for item in rules if "table" in item}
    assert tables == {("inet", "labkit")}
    sets = {f"@{item['set']['name']}": item["set"].get("elem") for item in rules if "set" in item}
    address, _, prefix = base.partition("/")
    assert sets["@sources4"] == [{"prefix": {"addr": address, "len": int(prefix)}}]
    assert sets["@sources6"] is None and sets["@bridges"] == ["labkit0"]
    masquerades = [
        r["rule"]["expr"] for r in rules if "rule" in r and any("masquerade" in e for e in r["rule"]["expr"])
    ]
    assert len(masquerades) == 4
    for rule in masquerades:
        sides = [(e["match"]["left"], e["match"]["op"], e["match"]["right"]) for e in rule if "match" in e]
        sources = {(left["payload"]["field"], right) for left, op, right in sides if "payload" in left and op == "=="}
        assert sources in ({("saddr", "@sources4")}, {("saddr", "@sources6")})
        assert any(left == {"meta": {"key": "oifname"}} and right == "@bridges" for left, _, right in sides)


def test_the_gateway_keeps_its_mac_whoever_comes_and_goes(tmp_path: Path) -> None:
    """A bridge would take its lowest port's MAC; ours has its own before, with and after the containers."""
    in_machine(
        tmp_path,
        CENSUS
        + """
def mac():
    (link,) = ip("link", "show", "labkit0")
    return link["address"]
seen = set()
for number in range(6):
    identifier = f"{number}a" * 32
    bridge.attach(identifier, new_namespace(), Ledger(identifier))
    seen.add(mac())
for number in range(5):
    bridge.detach(f"{number}a" * 32, Ledger(f"{number}a" * 32))
    seen.add(mac())
assert len(seen) == 1, seen
""",
    )


def test_detach_gives_everything_back(tmp_path: Path) -> None:
    """The network stays while one container is on it; with the last the machine is as before, sysctl too."""
    in_machine(
        tmp_path,
        CENSUS
        + """
other = new_namespace()
one, two = Ledger("c1" * 32), Ledger("d2" * 32)
for turn in range(2):
    bridge.attach("c1" * 32, pid, one)
    bridge.attach("d2" * 32, other, two)
    bridge.detach("c1" * 32, one)
    assert bridge.subnet() and "labkit0" in sh("ip", "link")
    assert bridge.FORWARDING.read_text() == "1\\n"
    bridge.detach("d2" * 32, two)
    bridge.detach("d2" * 32, two)
    assert census() == before
    assert not list(all_ledgers())
""",
    )


def test_forwarding_that_was_on_stays_on(tmp_path: Path) -> None:
    """A machine that forwarded before still does afterwards."""
    in_machine(
        tmp_path,
        """
bridge.FORWARDING.write_text("1")
pid = new_namespace()
before = census()
ledger = Ledger("c1" * 32)
bridge.attach("c1" * 32, pid, ledger)
bridge.detach("c1" * 32, ledger)
assert census() == before and bridge.FORWARDING.read_text() == "1\\n"
""",
    )


@pytest.mark.parametrize("way", ["detach", "reset"])
def test_forwarding_stays_on_for_somebody_who_came_meanwhile(tmp_path: Path, way: str) -> None:
    """A bridge that another program made while we forwarded: its guests are forwarded still when we have gone."""
    in_machine(
        tmp_path,
        f"way = {way!r}"
        + """
from labkit.network import networks
names = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/out0/accept_ra")
files = [Path("/proc/sys/net", name) for name in names]
outside()
sh("ip", "link", "add", "br-old", "type", "bridge")  # it was there without forwarding, and does not need it
identifier, pid = "c1" * 32, new_namespace()
def visit(meanwhile):
    networks.create(networks.Wish("six", ipv6=True))
    bridge.attach(identifier, pid, Ledger(identifier), "six")
    meanwhile()
    if way == "detach":
        bridge.detach(identifier, Ledger(identifier), "six")
        networks.remove("six")
    reset()
    assert not list(all_ledgers())
    return [file.read_text().strip() for file in files]
bridge.FORWARDING.write_text("0")
assert visit(lambda: None) == ["0", "0", "1"]
assert visit(lambda: sh("ip", "link", "add", "docker0", "type", "bridge")) == ["1", "1", "2"]
""",
    )


def test_a_setting_that_somebody_wrote_meanwhile_is_theirs(tmp_path: Path) -> None:
    """What no longer holds the value that we wrote is not written back."""
    in_machine(
        tmp_path,
        """
file = Path("/proc/sys/net/ipv4/ip_default_ttl")
from labkit.kernel import sysctls
ledger = Ledger("c1" * 32)
sysctls.switch(ledger, file, "77")
file.write_text("99")
ledger.release_all()
assert file.read_text() == "99\\n"
sysctls.switch(ledger, file, "77")
ledger.release_all()
assert file.read_text() == "99\\n"
""",
    )


def test_a_subnet_that_is_routed_already_is_left_alone(tmp_path: Path) -> None:
    """With a route into the first candidates, the network takes other addresses."""
    taken = in_machine(
        tmp_path,
        CENSUS
        + """
there = outside()
sh("ip", "route", "add", "172.28.0.0/14", "via", "10.99.0.2")
bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
say(bridge.subnet())
""",
    )
    assert taken == "172.27.0.0/24"


@pytest.mark.parametrize("kind", ["bridge", "veth", "marked bridge of another"])
def test_a_foreign_device_of_that_name_is_refused_and_untouched(tmp_path: Path, kind: str) -> None:
    """Whatever labkit0 is, if this labkit did not make it: InUse, and even a reset leaves it as it was."""
    message = in_machine(
        tmp_path,
        f"kind = {kind!r}"
        + """
sh("ip", "link", "add", "labkit0", "type", "veth" if kind == "veth" else "bridge")
if kind.startswith("marked"):
    sh("ip", "link", "set", "labkit0", "alias", "labkit")
pid = new_namespace()
before = census()
try:
    bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
except InUse as error:
    say(str(error))
bridge.detach("c1" * 32, Ledger("c1" * 32))
reset()
assert census() == before
""",
    )
    assert message and "labkit0" in message and "next:" in message


def test_a_foreign_table_is_refused_and_untouched(tmp_path: Path) -> None:
    """A table `inet labkit` that labkit did not make keeps its rules, and the attempt leaves nothing behind."""
    message = in_machine(
        tmp_path,
        """
sh("nft", "add table inet labkit; add chain inet labkit mine; add rule inet labkit mine counter")
pid = new_namespace()
before = census()
try:
    bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
except InUse as error:
    say(str(error))
bridge.detach("c1" * 32, Ledger("c1" * 32))
reset()
assert census() == before
""",
    )
    assert message and "labkit" in message


def test_rules_that_somebody_flushed_come_back_with_the_next_change(tmp_path: Path) -> None:
    """After `nft flush ruleset` a network is made, used and removed as if nothing had happened."""
    in_machine(
        tmp_path,
        CENSUS
        + """
from labkit.network import networks
bridge.attach("c1" * 32, pid, Ledger("c1" * 32))
whole = census()
sh("nft", "flush", "ruleset")
networks.create(networks.Wish("shop"))
networks.remove("shop")
def rules(seen):
    return sorted(json.dumps({**one["rule"], "handle": 0}) for one in seen[2] if "rule" in one)
assert rules(census()) == rules(whole) and len(rules(whole)) == 10
bridge.detach("c1" * 32, Ledger("c1" * 32))
assert census() == before
""",
    )


def test_attach_to_a_process_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    """The kernel's refusal is a LabError, and after detach the machine is as before."""
    message = in_machine(
        tmp_path,
        CENSUS
        + """
try:
    bridge.attach("c1" * 32, 99999, Ledger("c1" * 32))
except LabError as error:
    say(str(error))
bridge.detach("c1" * 32, Ledger("c1" * 32))
assert census() == before
""",
    )
    assert "cannot connect the container" in message


# The victim counts every call and return at which something is written or asked for, and
# kills itself at one of them: those are the moments between which states differ.
KILLED = """
STEPS = {"request", "apply", "_append", "save", "write_text", "rename", "unlink", "_execute_child"}
VICTIM = '''
import os, signal, sys
from labkit.kernel.ledger import Ledger
from labkit.network import bridge
from labkit.kernel import nftables
action, pid, at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ledger = Ledger("c1" * 32)
if action == "detach":
    bridge.attach("c1" * 32, pid, ledger)
count = 0
def watch(frame, event, argument):
    global count
    if event in ("call", "return") and frame.f_code.co_name in STEPS:
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(watch)
if action == "attach":
    bridge.attach("c1" * 32, pid, ledger)
else:
    bridge.detach("c1" * 32, ledger)
sys.setprofile(None)
print(count)
'''.replace("STEPS", repr(STEPS))
def strike(action, at):
    child = subprocess.run([sys.executable, "-c", VICTIM, action, str(pid), str(at)], capture_output=True, text=True)
    return child.returncode, child.stdout, child.stderr
"""


def kill_at_moments(folder: Path, action: str, most: int | None) -> None:
    """Kill `action` at `most` seeded moments (None: at each); reset twice; look from outside."""
    moments, total = in_machine(
        folder,
        CENSUS
        + KILLED
        + f"""
import random
code, out, err = strike({action!r}, 0)
assert code == 0, err
total = int(out)
reset()
assert census() == before
moments = list(range(1, total + 1))
if {most!r}:
    moments = sorted(random.Random(2).sample(moments, {most!r}))
for at in moments:
    code, out, err = strike({action!r}, at)
    assert code == -9, (at, code, err)
    reset()
    assert census() == before, ("after a kill at moment", at, census(), before)
    reset()
    assert census() == before and not list(all_ledgers()), at
say([len(moments), total])
""",
        timeout=500,
    )
    assert moments == (most or total) and moments >= 5


@pytest.mark.parametrize("action", ["attach", "detach"])
def test_killed_at_seeded_moments_a_reset_gives_all_back(tmp_path: Path, action: str) -> None:
    """After SIGKILL and a reset, links, rules, routes and the sysctl are as before; twice changes nothing."""
    kill_at_moments(tmp_path, action, 6)


@pytest.mark.long
@pytest.mark.parametrize("action", ["attach", "detach"])
def test_killed_at_every_moment_a_reset_gives_all_back(tmp_path: Path, action: str) -> None:
    """The same at each call and return that changes anything."""
    kill_at_moments(tmp_path, action, None)


def test_killed_while_making_the_network_the_next_attach_completes_it(tmp_path: Path) -> None:
    """Without a reset in between, the next container gets a whole network: rules and forwarding included."""
    in_machine(
        tmp_path,
        CENSUS
        + KILLED
        + """
code, out, err = strike("attach", 0)
assert code == 0, err
total = int(out)
reset()
for at in range(1, total + 1, 3):
    code, out, err = strike("attach", at)
    assert code == -9
    other, ledger = new_namespace(), Ledger("d2" * 32)
    endpoint = bridge.attach("d2" * 32, other, ledger)
    rules = [item for item in nftables.ruleset("inet", "labkit") if "rule" in item]
    assert len(rules) == 10, (at, rules)
    assert bridge.FORWARDING.read_text() == "1\\n", at
    configure(other, endpoint)
    serve(os.getpid(), 9001 + at)
    assert seen_from(other, endpoint.gateway, 9001 + at) == endpoint.address
    reset()
    assert census() == before, at
""",
        timeout=300,
    )
