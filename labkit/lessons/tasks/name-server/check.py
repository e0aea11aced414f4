"""Top floor: the check of name-server.

Owns: a container that asks, a server further up that knows one name, and the questions that bring a server down.
Read: RFC 1035, RFC 2308 on names that exist without data.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import dns.exception
import dns.message
import dns.rcode

from labkit.lessons import netground
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

Answer = tuple[str, list[str]]  # the code's name, and the addresses


def check(serve_names: Callable[[str, dict[str, str], str], None], lab: Ground) -> None:
    """The container asks by dnspython from outside the function's process."""
    net = f"172.{lab.number(16, 31)}.{lab.number(0, 255)}"
    known = {lab.token(): f"{net}.{number}" for number in (20, 21)}
    name, far, trouble = next(iter(known)), f"{lab.token()}.example", lab.folder() / "trouble"
    far_address = f"192.0.2.{lab.number(1, 254)}"
    machine, home = lab.child("machine"), lab.child("container")
    Child.do(home, netground.own_network)
    Child.do(machine, netground.ip, "link add br0 type bridge", f"addr add {net}.1/24 dev br0", "link set br0 up",
             "link set lo up", f"link add v1 type veth peer name eth0 netns {home.pid}", "link set v1 master br0",
             "link set v1 up")  # fmt: skip
    Child.do(home, netground.ip, f"addr add {net}.2/24 dev eth0", "link set eth0 up")
    upstream = Child.do(
        machine, netground.background, str(trouble) + "-up", netground.name_server, "127.0.0.53", {far: far_address}
    )
    lab.until(lambda: Child.do(machine, question, "127.0.0.53", far, "A", 0.5), 15, "the server upstream is not there")
    server = machine.do(netground.background, str(trouble), serve_names, f"{net}.1", known, "127.0.0.53")

    def ask(asked: str, kind: str = "A", limit: float = 4.0) -> Answer:
        found = Child.do(home, question, f"{net}.1", asked, kind, limit)
        if found is None or found[0].startswith("an "):
            # Its socket goes before its last words are written.
            ended = netground.within(2.0, trouble.exists)
            said = trouble.read_text() if ended else "the server has not ended"
            raise Wrong(f"{kind} of {asked} was asked, and no answer came that belongs to the question: {said}")
        return found[0], found[1]

    lab.until(lambda: trouble.exists() or Child.do(home, question, f"{net}.1", name, "A", 0.5), 15,
              f"nobody answers at {net}.1, port 53")  # fmt: skip
    for one, address in known.items():
        if (got := ask(one)) != ("NOERROR", [address]):
            raise Wrong(f"A of {one} is {address}; the answer was {words(got)}")
    if (got := ask(name.swapcase())) != ("NOERROR", [known[name]]):
        raise Wrong(f"A of {name.swapcase()} was asked (a name is the same in large letters), "
                    f"and the answer was {words(got)}")  # fmt: skip
    if (got := ask(name, "AAAA")) != ("NOERROR", []):
        raise Wrong(f"AAAA of {name} was asked, a name that exists and has no such address; the answer was {words(got)}"
                    " instead of NOERROR without addresses")  # fmt: skip
    if (got := ask(far)) != ("NOERROR", [far_address]):
        raise Wrong(f"A of {far} was asked, which the server upstream knows; the answer was {words(got)}")
    Child.do(home, send, f"{net}.1", os.urandom(9))
    if (got := ask(name)) != ("NOERROR", [known[name]]):
        raise Wrong(f"after nine bytes that were no question, A of {name} was answered by {words(got)}")
    Child.do(machine, netground.end, [upstream])
    if (got := ask(far))[0] != "SERVFAIL":
        raise Wrong(f"the server upstream is gone, and A of {far} was answered by {words(got)} instead of SERVFAIL")
    os.kill(server, 0)  # it is still there: what it held is given back by the ground


def words(got: Answer) -> str:
    return f"{got[0]} with {', '.join(got[1]) or 'no address'}"


def question(server: str, name: str, kind: str, limit: float) -> Any:
    """In the container: ask once; the code and the addresses, or None when nothing comes."""
    query = dns.message.make_query(f"{name}.", kind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(limit)
        try:
            line.connect((server, 53))
            line.send(query.to_wire())
            answer = dns.message.from_wire(line.recv(4096))
        except (OSError, dns.exception.DNSException):
            return None
    if not query.is_response(answer):
        return "an answer to another question", []
    return dns.rcode.to_text(answer.rcode()), [item.to_text() for rrset in answer.answer for item in rrset]


def send(server: str, data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.sendto(data, (server, 53))
