"""Published ports: what -p means, both ways in, and a port that somebody else holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_ground import in_machine, needs_root

from labkit.errors import BadInput
from labkit.network import names
from labkit.network.ports import PortMapping, parse

ON_HOST = needs_root

ATTACHED = """
before = census()
pid = new_namespace()
identifier = "c1" * 32
ledger = Ledger(identifier)
there = outside()
with_outside = census()
endpoint = bridge.attach(identifier, pid, ledger)
configure(pid, endpoint)
"""


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("8080:80", ("0.0.0.0", 8080, 80, "tcp")),
        ("127.0.0.1:8080:80", ("127.0.0.1", 8080, 80, "tcp")),
        ("8080:80/udp", ("0.0.0.0", 8080, 80, "udp")),
        ("80", ("0.0.0.0", 0, 80, "tcp")),
        ("127.0.0.1::80", ("127.0.0.1", 0, 80, "tcp")),
        ("[::1]:8080:80", ("::1", 8080, 80, "tcp")),
        ("[::]:53/udp", ("::", 0, 53, "udp")),
    ],
)
def test_the_forms_of_publish(text: str, meaning: tuple[str, int, int, str]) -> None:
    """Each form that docker run -p takes means the same here."""
    assert parse(text) == [PortMapping(*meaning)]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("8000-8002:80-82", [(8000, 80), (8001, 81), (8002, 82)]),
        ("80-81/tcp", [(0, 80), (0, 81)]),
        ("0:80", [(0, 80)]),
    ],
)
def test_a_range_is_one_mapping_a_port(text: str, pairs: list[tuple[int, int]]) -> None:
    """Both sides of a range rise together; without the machine's side each gets a free one."""
    assert parse(text) == [PortMapping("0.0.0.0", *pair, "tcp") for pair in pairs]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "80:",
        "0",
        "70000:80",
        "80:70000",
        "8080:80/sctp",
        "8000-8010:80",
        "8000:80-81",
        "8010-8000:80-90",
        "8000-8001:0-1",
        "65535-65536:80-81",
        "[::g]:80:80",
        "[192.0.2.4]:80:80",
        "::1:80:80",
        "1.2.3.999:80:80",
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(text: str) -> None:
    """Unequal ranges, IPv6 without brackets, impossible numbers: BadInput with the text and an example."""
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert repr(text) in caught.value.what and caught.value.why and caught.value.next


@pytest.mark.parametrize("text", ["127.0.0.53", "::1", "127.0.0.1"])
def test_a_name_server_on_the_loopback_is_not_given_to_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """With a stub in the machine's file the real servers of systemd-resolved are taken; without them none."""
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text(f"nameserver {text}\noptions edns0\nsearch .\n")
    monkeypatch.setattr(names, "RESOLV_CONFS", (stub, real))
    assert "nameserver" not in names.resolv_conf()
    real.write_text("nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example.org\n")
    assert names.resolv_conf() == "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example.org\n"


def test_hosts_has_localhost_and_the_container() -> None:
    """localhost is the loopback; the container's name is its address."""
    lines = [line.split() for line in names.hosts("web", "172.30.0.2").splitlines()]
    assert ["127.0.0.1", "localhost"] in lines and ["172.30.0.2", "web"] in lines


class TestOnAMachine:
    """With a kernel: each on a machine of its own."""

    pytestmark = ON_HOST

    def test_both_ways_lead_in(self, tmp_path: Path) -> None:
        """By the forwarder over the loopback, by DNAT from outside (the caller's address kept), and from inside."""
        gateway, near, far, inside = in_machine(
            tmp_path,
            ATTACHED
            + """
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
serve(pid, 80)
say([endpoint.gateway, seen_here("127.0.0.1", 8080), seen_from(there, "10.99.0.1", 8080),
     seen_from(pid, endpoint.gateway, 8080)])
""",
        )
        assert near == gateway
        assert far == "10.99.0.2"
        assert inside == gateway

    def test_a_port_of_the_loopback_is_not_open_to_others(self, tmp_path: Path) -> None:
        """-p 127.0.0.1:8080:80 serves this machine and refuses a neighbour."""
        near, far = in_machine(
            tmp_path,
            ATTACHED
            + """
ports.publish(ports.parse("127.0.0.1:8080:80"), endpoint, identifier, ledger)
serve(pid, 80)
say([bool(seen_here("127.0.0.1", 8080)), seen_from(there, "10.99.0.1", 8080)])
""",
        )
        assert near is True
        assert far == ""

    def test_a_packet_for_the_loopback_that_a_neighbour_sends_does_not_get_in(self, tmp_path: Path) -> None:
        """A neighbour that routes 127.0.0.1 to this machine's MAC reaches no loopback port; this machine does."""
        near, far, rules = in_machine(
            tmp_path,
            ATTACHED
            + """
ports.publish(ports.parse("127.0.0.1:8080:80"), endpoint, identifier, ledger)
ports.publish(ports.parse("8081:80"), endpoint, identifier, ledger)
serve(pid, 80)
neighbour = ["nsenter", "-t", str(there), "-n"]
sh(*neighbour, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
sh(*neighbour, "ip", "route", "add", "127.0.0.0/8", "via", "10.99.0.1", "dev", "eth0")
rules = [rule["comment"] for item in nftables.ruleset("inet", "labkit") if (rule := item.get("rule"))
         and rule["chain"] == "prerouting" and 8080 in (e["match"]["right"] for e in rule["expr"] if "match" in e)]
# The second port, for everybody, shows that the packets do arrive.
say([bool(seen_here("127.0.0.1", 8080)), [seen_from(there, "127.0.0.1", port) for port in (8080, 8081)], rules])
""",
        )
        assert far == ["", "10.99.0.2"]
        assert near and rules == []

    def test_udp_and_a_port_that_the_kernel_chooses(self, tmp_path: Path) -> None:
        """A datagram finds its way in and the answer its way back, on a host port that was free."""
        port, answers = in_machine(
            tmp_path,
            ATTACHED
            + """
(mapping,) = ports.publish(ports.parse("53/udp"), endpoint, identifier, ledger)
code = '''
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(999)
    s.sendto(data[::-1], peer)
'''
server = within(pid, code)
server.stdout.readline()
ask = f'''
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("HOST", {mapping.host_port}))
s.send(b"abc")
print(s.recv(99).decode())
'''
answers = [within(os.getpid(), ask.replace("HOST", "127.0.0.1")).communicate()[0].strip(),
           within(there, ask.replace("HOST", "10.99.0.1")).communicate()[0].strip()]
say([mapping.host_port, answers])
""",
        )
        assert port > 0
        assert answers == ["cba", "cba"]

    def test_much_in_both_directions_arrives_whole(self, tmp_path: Path) -> None:
        """8 MiB there and back through the forwarder, by a client that ends its side: the same bytes."""
        in_machine(
            tmp_path,
            ATTACHED
            + """
import hashlib
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
code = '''
s = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
c, a = s.accept()
data = b""
while part := c.recv(65536):
    data += part
c.sendall(data)
c.close()
'''
server = within(pid, code)
server.stdout.readline()
data = os.urandom(1 << 23)
with socket.create_connection(("127.0.0.1", 8080), 20) as connection:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    back = b""
    while part := connection.recv(65536):
        back += part
assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest(), len(back)
""",
        )

    def test_a_taken_port_names_its_holder_and_leaves_nothing(self, tmp_path: Path) -> None:
        """With one of two ports taken: InUse with the holder's pid, no rule, no process, the other port free."""
        holder, message = in_machine(
            tmp_path,
            ATTACHED
            + """
server = subprocess.Popen([sys.executable, "-c",
    "import socket,time; s=socket.create_server(('0.0.0.0', 8080)); print('ready', flush=True); time.sleep(99)"],
    stdout=subprocess.PIPE, text=True)
server.stdout.readline()
state = [census(), ledger.entries()]
try:
    ports.publish([*ports.parse("8081:81"), *ports.parse("8080:80")], endpoint, identifier, ledger)
except InUse as error:
    say([server.pid, str(error)])
assert [census(), ledger.entries()] == state
socket.create_server(("0.0.0.0", 8081)).close()
""",
        )
        assert "8080/tcp" in message and f"process {holder} " in message and "next:" in message

    def test_unpublish_and_detach_give_everything_back(self, tmp_path: Path) -> None:
        """Only this container's rules go with unpublish; forwarder, port and network with the ledger."""
        in_machine(
            tmp_path,
            ATTACHED
            + """
other, second = new_namespace(), Ledger("d2" * 32)
two = bridge.attach("d2" * 32, other, second)
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
ports.publish(ports.parse("8081:80"), two, "d2" * 32, second)
ports.unpublish(identifier)
comments = [i["rule"].get("comment") for i in nftables.ruleset("inet", "labkit") if "rule" in i]
assert comments.count(("d2" * 32)[:12]) == 1 and comments.count(identifier[:12]) == 0
reset()
assert census() == with_outside
for _ in range(200):
    try:
        socket.create_server(("0.0.0.0", 8080)).close()
        break
    except OSError:
        time.sleep(0.01)
else:
    raise AssertionError("the port is still held")
ports.unpublish(identifier)
""",
        )

    def test_killed_while_publishing_a_reset_frees_the_port(self, tmp_path: Path) -> None:
        """SIGKILL around the start of the forwarder: after a reset no forwarder runs and no rule is left."""
        in_machine(
            tmp_path,
            ATTACHED
            + """
VICTIM = '''
import os, signal, sys
from labkit.kernel.ledger import Ledger
from labkit.network import bridge, endpoint, ports
at = int(sys.argv[1])
STEPS = {"_append", "_execute_child", "apply", "_start_forwarder"}
count = 0
def watch(frame, event, argument):
    global count
    if event in ("call", "return") and frame.f_code.co_name in STEPS:
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(watch)
ports.publish(ports.parse("8080:80"), endpoint.Endpoint.from_json(ENDPOINT), IDENTIFIER, Ledger(IDENTIFIER))
sys.setprofile(None)
print(count)
'''.replace("ENDPOINT", repr(endpoint.to_json())).replace("IDENTIFIER", repr(identifier))
def forwarders():
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\\0")
            if (folder / "stat").read_text().rpartition(") ")[2][0] in "ZX":
                continue  # dead: process 1 of this machine does not reap
            if b"labkit.network.forward" in words or "labkit-forward" in (folder / "comm").read_text():
                found.append(folder.name)
        except OSError:
            pass
    return found
reset()
at, moments = 1, 0
while True:
    endpoint = bridge.attach(identifier, pid, ledger)
    child = subprocess.run([sys.executable, "-c", VICTIM, str(at)], stdout=subprocess.PIPE, text=True,
                           stderr=subprocess.DEVNULL)
    reset()
    deadline = time.monotonic() + 60  # it ends by itself once it has started, however busy the machine
    while forwarders() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not forwarders(), at
    assert census() == with_outside, at
    socket.create_server(("0.0.0.0", 8080)).close()
    if child.returncode == 0:
        break
    assert child.returncode == -9
    at += 1
assert at > 5, at
""",
        )
