"""Published ports by IPv6, by hairpin, across networks; a port without the right to it; a port that is given back."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_ground import in_machine, needs_root

pytestmark = needs_root

SIX = """
from labkit.network import networks
before = census()
there = outside()
for who, words in ((os.getpid(), "addr add fd99::1/64 dev out0 nodad"), (there, "addr add fd99::2/64 dev eth0 nodad")):
    sh("nsenter", "-t", str(who), "-n", "ip", *words.split())
networks.create(networks.Wish("six", ipv6=True))
pid, other, far = new_namespace(), new_namespace(), new_namespace()
identifier = "c1" * 32
ledger = Ledger(identifier)
endpoint = bridge.attach(identifier, pid, ledger, "six")
neighbour = bridge.attach("d2" * 32, other, Ledger("d2" * 32), "six")
stranger = bridge.attach("e3" * 32, far, Ledger("e3" * 32))
for who, what in ((pid, endpoint), (other, neighbour), (far, stranger)):
    configure(who, what)

# One that listens on every address of both families, and answers with the address that it sees.
DUAL = '''
s = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    c, a = s.accept()
    c.sendall(a[0].removeprefix("::ffff:").encode())
    c.close()
'''
server = within(pid, DUAL.replace("PORT", "80"))
assert server.stdout.readline() == "ready\\n"
"""


def test_both_families_lead_in(tmp_path: Path) -> None:
    """From both loopbacks by the forwarder; from outside by DNAT in both families, the caller's address kept."""
    seen, address, gateways = in_machine(
        tmp_path,
        SIX
        + """
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
say([[seen_here("127.0.0.1", 8080), seen_here("::1", 8080),
      seen_from(there, "10.99.0.1", 8080), seen_from(there, "fd99::1", 8080)],
     endpoint.address6, [endpoint.gateway, endpoint.gateway6]])
""",
    )
    assert address and seen == [*gateways, "10.99.0.2", "fd99::2"]


def test_hairpin_in_both_families(tmp_path: Path) -> None:
    """The container itself, and its neighbour, reach the published port by the machine's address, IPv4 and IPv6."""
    seen, gateways = in_machine(
        tmp_path,
        SIX
        + """
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
say([[seen_from(who, host, 8080) for who in (pid, other) for host in (endpoint.gateway, "fd99::1")],
     [endpoint.gateway, endpoint.gateway6]])
""",
    )
    assert seen == gateways * 2


def test_another_network_comes_in_by_the_published_port_alone(tmp_path: Path) -> None:
    """A container of another network reaches the machine's port (and comes as the gateway); not the container's."""
    by_port, straight, gateway = in_machine(
        tmp_path,
        SIX
        + """
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
say([seen_from(far, stranger.gateway, 8080), seen_from(far, endpoint.address, 80), endpoint.gateway])
""",
    )
    assert by_port == gateway and straight == ""


def test_an_ipv6_address_of_the_machine_can_be_named(tmp_path: Path) -> None:
    """-p [::1]:8080:80 serves the machine's IPv6 loopback and nothing else."""
    near, refused_, outside = in_machine(
        tmp_path,
        SIX
        + """
ports.publish(ports.parse("[::1]:8080:80"), endpoint, identifier, ledger)
try:
    seen_here("127.0.0.1", 8080)
    refused = ""
except ConnectionRefusedError:
    refused = "refused"
say([seen_here("::1", 8080), refused, seen_from(there, "fd99::1", 8080)])
""",
    )
    assert near and refused_ == "refused" and outside == ""


def test_everything_is_given_back_in_both_families(tmp_path: Path) -> None:
    """After unpublish, detach and rm: links, addresses, rules, forwarding and accept_ra of IPv6 as before."""
    in_machine(
        tmp_path,
        """
def settings():
    files = sorted(Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra")) + [bridge.FORWARDING6]
    return {str(file): file.read_text() for file in files if "/far0/" not in str(file)}
early = settings()
"""
        + SIX
        + """
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
assert bridge.FORWARDING6.read_text() == "1\\n"
assert Path("/proc/sys/net/ipv6/conf/out0/accept_ra").read_text() == "2\\n"
ports.unpublish(identifier, ledger)
for name, network in (("c1", "six"), ("d2", "six"), ("e3", "labkit0")):
    bridge.detach(name * 32, Ledger(name * 32), network)
networks.remove("six")
sh("ip", "link", "del", "out0")
assert settings() == early
assert census() == before and not list(all_ledgers())
""",
    )


def test_a_privileged_port_without_the_right_names_the_capability(tmp_path: Path) -> None:
    """Root without CAP_NET_BIND_SERVICE: port 80 is refused with the reason, and nothing is open."""
    message = in_machine(
        tmp_path,
        """
from labkit.errors import Refused
pid = new_namespace()
ledger = Ledger("c1" * 32)
endpoint = bridge.attach("c1" * 32, pid, ledger)
state = [census(), ledger.entries()]
code = f'''
import sys
from labkit.errors import Refused
from labkit.kernel.ledger import Ledger
from labkit.network import endpoint, ports
try:
    ports.publish([*ports.parse("8080:81"), *ports.parse("80:80")],
                  endpoint.Endpoint.from_json({endpoint.to_json()!r}), "c1" * 32, Ledger("c1" * 32))
except Refused as error:
    print(error)
'''
without = ["setpriv", "--inh-caps", "-net_bind_service", "--bounding-set", "-net_bind_service"]
say(sh(*without, sys.executable, "-c", code))
assert [census(), ledger.entries()] == state
socket.create_server(("0.0.0.0", 8080)).close()
""",
    )
    assert "port 80" in message and "CAP_NET_BIND_SERVICE" in message and "next:" in message


@pytest.mark.parametrize("host", ["", "127.0.0.1:"])
def test_taken_off_its_network_a_container_answers_no_more(tmp_path: Path, host: str) -> None:
    """`disconnect` of the network that the ports lead over closes them; the address may go to somebody else."""
    in_machine(
        tmp_path,
        SIX
        + f"host = {host!r}"
        + """
ports.publish(ports.parse(host + "8080:80"), endpoint, identifier, ledger)
assert seen_here("127.0.0.1", 8080)
networks.disconnect("six", identifier, pid)
for _ in range(500):
    try:
        socket.create_server(("0.0.0.0", 8080)).close()
        break
    except OSError:
        time.sleep(0.01)
else:
    raise AssertionError("the port is still held")
assert "dnat" not in sh("nft", "list", "chain", "inet", "labkit", "prerouting").replace("dstnat", "")
assert not ledger.entries()
""",
    )
