"""Ground for the name service's tests: a network as its plan says, with containers that are bare namespaces.

No bridge of ours is needed: the plan is written here, the cables are laid with ip(8), and who asks
is dig, getent or dnspython's client, in the container's own namespace.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from network_ground import in_machine

PRELUDE = """
from labkit.network import dns_service, plan
from labkit.network.plan import Member

WEB, DB, API = "a1" * 32, "b2" * 32, "c3" * 32

def network(name="shop", third=29, internal=False):
    # A bridge with addresses, and its plan: what `labkit network create` makes of it.
    made = plan.Plan(name)
    made.subnet, made.gateway = f"172.{third}.0.0/24", f"172.{third}.0.1"
    made.subnet6, made.gateway6 = f"fd00:{third}::/64", f"fd00:{third}::1"
    made.internal = internal
    sh("ip", "link", "add", name, "type", "bridge")
    sh("ip", "addr", "add", made.gateway + "/24", "dev", name)
    sh("ip", "addr", "add", made.gateway6 + "/64", "dev", name, "nodad")
    sh("ip", "link", "set", name, "up")
    with plan.locked():
        made.save()
        dns_service.ensure(made, Ledger(f"network-{name}"))
    return made

def remove(made):
    Ledger(f"network-{made.name}").release_all()
    made.remove()
    sh("ip", "link", "del", made.name)

def server(made):
    # The name server's pid, by the ledger.
    (entry,) = [one for one in Ledger(f"network-{made.name}").entries() if one.kind == "process"]
    return entry.fields["pid"]

def join(made, identifier, number, name, *aliases, v6=True):
    pid = new_namespace()
    base, base6 = made.gateway.rpartition(".")[0], made.gateway6.rpartition(":")[0]
    near = f"v{pid}"
    sh("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    sh("ip", "link", "set", near, "master", made.name, "up")
    inner = ["nsenter", "-t", str(pid), "-n", "ip"]
    sh(*inner, "link", "set", "lo", "up")
    sh(*inner, "addr", "add", f"{base}.{number}/24", "dev", "eth0")
    sh(*inner, "addr", "add", f"{base6}:{number}/64", "dev", "eth0", "nodad")
    sh(*inner, "link", "set", "eth0", "up")
    sh(*inner, "route", "add", "default", "via", made.gateway)
    member = Member(name, aliases, f"{base}.{number}", f"{base6}:{number}" if v6 else "", "eth0", near, "")
    made.containers[identifier] = member
    made.save()
    return pid

def dig(pid, *words, server="172.29.0.1"):
    words = ["nsenter", "-t", str(pid), "-n", "dig", "+time=5", "+tries=2", "+noall", "+comments", "+answer",
             "@" + server, *words]
    text = sh(*words)
    status = text.partition("status: ")[2].partition(",")[0]
    flags = text.partition("flags: ")[2].partition(";")[0].split()
    lines = [line.split() for line in text.splitlines() if line and not line.startswith(";")]
    return [status, flags, sorted([line[3], line[4]] for line in lines)]

UPSTREAM = '''
import socket, struct, threading
import dns.message, dns.rrset, dns.flags
def reply(wire):
    query = dns.message.from_wire(wire)
    name = query.question[0].name
    answer = dns.message.make_response(query)
    label = name.labels[0].decode()
    if label == "silent":
        return None
    if label == "refuse":
        answer.set_rcode(5)
    elif label == "big" :
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *[str(n) * 200 for n in range(10)]))
    elif label == "liar":
        answer.question[0] = dns.rrset.RRset(dns.name.from_text("other.example."), 1, 1)
    else:
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
    return answer.to_wire(max_size=65535)
def tcp(listener):
    while True:
        c, a = listener.accept()
        n = struct.unpack("!H", c.recv(2, socket.MSG_WAITALL))[0]
        r = reply(c.recv(n, socket.MSG_WAITALL))
        c.sendall(struct.pack("!H", len(r)) + r)
        c.close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((ADDRESS, 53))
t = socket.create_server((ADDRESS, 53))
threading.Thread(target=tcp, args=(t,), daemon=True).start()
print("ready", flush=True)
while True:
    wire, client = u.recvfrom(65535)
    r = reply(wire)
    if r is not None:
        # By UDP what is big is cut, as servers do.
        if len(r) > 1232:
            r = r[:2] + bytes([r[2] | 2]) + r[3:4] + wire[4:6] + bytes(6) + wire[12:wire.index(0, 12) + 5]
        u.sendto(r, client)
'''

def upstream(address="10.99.0.2"):
    # Another server, outside; the machine's resolv.conf (a private one) names it.
    there = outside()
    helper = within(there, UPSTREAM.replace("ADDRESS", repr(address)))
    assert helper.stdout.readline() == "ready\\n"
    return there, helper

def resolv_conf(*servers):
    # In this machine's own mount namespace: nobody else sees it.
    file = Path(os.environ["LABKIT_RUN"]) / "resolv.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"nameserver {one}\\n" for one in servers))
    sh("mount", "--bind", str(file), "/etc/resolv.conf")
"""


def on_network(folder: Path, program: str, timeout: float = 120) -> Any:
    """Run `program` on a machine of its own, with the above at hand."""
    return in_machine(folder, PRELUDE + textwrap.dedent(program), timeout)
