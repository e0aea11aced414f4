"""Floor 2: published ports: a port of the machine that leads into a container.

Owns: what -p means; the DNAT rule for those who come from outside, which keeps their
address; and a forwarder for those who come over the machine's loopback, where DNAT does
not reach.  The forwarder also holds the port, so that nobody else can.  There is no rule in
the hook output: what the machine sends itself is the forwarder's, by whichever address.

Read: nft(8) on dnat and fib; Documentation/networking/ip-sysctl.rst on route_localnet.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from labkit.errors import BadInput, InUse, LabError, Refused
from labkit.kernel import nftables, process
from labkit.kernel.ledger import Ledger
from labkit.kernel.nftables import Statement, match, meta, payload
from labkit.network.endpoint import Endpoint
from labkit.network.owned import start_owned
from labkit.network.rules import COUNTER, FAMILY, TABLE, WHERE

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


ANY = "0.0.0.0"  # every address of the machine, IPv6's too
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
TRIES = 16  # for a number that is free in both families, when any will do


class PortMapping(NamedTuple):
    """One -p; host port 0 means: any that is free."""

    host: str
    host_port: int
    container_port: int
    protocol: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.host_port}->{self.container_port}/{self.protocol}"


FORM = re.compile(
    r"(?:(?:(?P<v4>\d+(?:\.\d+){3})|\[(?P<v6>[0-9a-fA-F]*:[0-9a-fA-F:.]*)\]):)?"
    r"(?:(?P<host>\d*|\d+-\d+):)?(?P<inner>\d+|\d+-\d+)(?:/(?P<protocol>\w+))?"
)


def parse(text: str) -> list[PortMapping]:
    """[IP:][PORT:]PORT[/tcp|udp], as docker run -p; an IPv6 address stands in brackets.

    A range, 8000-8002:80-82, is one mapping a port; both sides are equally long.  Raises BadInput.
    """
    found = FORM.fullmatch(text)
    if found is None:
        raise _wrong(text, "no such form")
    protocol, host = found["protocol"] or "tcp", found["v4"] or found["v6"] or ANY
    inner, outer = _range(found["inner"]), _range(found["host"] or "0")
    if not found["host"]:
        outer = range(0, 1)  # any that is free, for each
    if protocol not in PROTOCOLS:
        raise _wrong(text, f"{protocol!r} is not tcp or udp")
    if not 1 <= inner.start <= inner.stop - 1 <= 65535 or not outer.start <= outer.stop - 1 <= 65535:
        raise _wrong(text, "a port is a number from 1 to 65535, and a range rises")
    if found["host"] and len(inner) != len(outer):
        raise _wrong(text, f"{len(outer)} ports of the machine cannot lead to {len(inner)} of the container")
    try:
        address = socket.inet_ntop(_family(host), socket.inet_pton(_family(host), host))
    except OSError:
        raise _wrong(text, f"{host!r} is no address") from None
    numbers = outer if found["host"] else [0] * len(inner)
    return [PortMapping(address, *pair, protocol) for pair in zip(numbers, inner, strict=True)]


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _wrong(text: str, why: str) -> BadInput:
    return BadInput(f"--publish {text!r} cannot be understood", why=why, next="for example --publish 8080:80")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def publish(mappings: Sequence[PortMapping], endpoint: Endpoint, container: str, ledger: Ledger) -> list[PortMapping]:
    """Open the ports; return them with the numbers that were chosen for 0.

    Raises InUse, naming who holds a port, and Refused for one below 1024 without the right; nothing
    is open then.
    """
    with contextlib.ExitStack() as held:
        listeners = []
        chosen = []
        for mapping in mappings:
            several = _listen_everywhere(mapping, held)
            chosen.append(mapping._replace(host_port=several[0].getsockname()[1]))
            listeners += [(chosen[-1], listener) for listener in several]
        _start_forwarder(listeners, endpoint, ledger)
    rules = [rule for mapping in chosen for rule in _rules(mapping, endpoint, container)]
    if rules:
        nftables.apply(rules, "cannot publish the ports")
    return chosen


def _listen_everywhere(mapping: PortMapping, held: contextlib.ExitStack) -> list[socket.socket]:
    """The listening sockets of one mapping: one, or for "every address" one a family, with the same number."""
    if mapping.host != ANY:
        return [held.enter_context(_listen(mapping))]
    for tries in range(TRIES, 0, -1):
        first = _listen(mapping)
        number = first.getsockname()[1]
        try:
            second = _listen(mapping._replace(host="::", host_port=number))
        except InUse:
            first.close()
            if mapping.host_port or tries == 1:
                raise
        except LabError:  # a machine without IPv6
            return [held.enter_context(first)]
        else:
            return [held.enter_context(first), held.enter_context(second)]
    raise AssertionError("unreachable")


def _listen(mapping: PortMapping) -> socket.socket:
    try:
        listener = socket.socket(_family(mapping.host), PROTOCOLS[mapping.protocol])
    except OSError as error:
        raise LabError(f"cannot listen on {mapping.host}:{mapping.host_port}", why=str(error)) from error
    try:
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if mapping.protocol == "tcp":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((mapping.host, mapping.host_port))
        if mapping.protocol == "tcp":
            listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InUse(
                f"port {mapping.host_port}/{mapping.protocol} of {mapping.host} is taken",
                why=holder(mapping) or "somebody listens there already",
                next=f"another port: --publish {mapping.host_port + 1}:{mapping.container_port}",
            ) from error
        if error.errno == errno.EACCES:
            start = UNPRIVILEGED.read_text().strip()
            raise Refused(
                f"may not listen on port {mapping.host_port}",
                why=f"ports below {start} need the capability CAP_NET_BIND_SERVICE, which this process lacks",
                next=f"--publish 8080:{mapping.container_port}, or run labkit as root",
            ) from error
        raise LabError(f"cannot listen on {mapping.host}:{mapping.host_port}", why=str(error)) from error
    return listener


def holder(mapping: PortMapping) -> str:
    """Who listens on the port, by /proc: the socket's inode, and the process that has it open."""
    inodes = set()
    for table in (f"/proc/net/{mapping.protocol}", f"/proc/net/{mapping.protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                # State 0A is LISTEN; a bound UDP socket is in state 07.
                if int(fields[1].rpartition(":")[2], 16) == mapping.host_port and fields[3] in ("0A", "07"):
                    inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            names = {os.readlink(fd) for fd in folder.iterdir()}
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
        if names & inodes:
            command = (folder.parent / "comm").read_text().strip()
            return f"process {folder.parent.name} ({command}) listens there"
    return ""


def _start_forwarder(listeners: list[tuple[PortMapping, socket.socket]], endpoint: Endpoint, ledger: Ledger) -> None:
    words = []
    for mapping, listener in listeners:
        # Who comes by IPv6 is led to the container's IPv6 address where it has one, as docker-proxy does.
        inner = endpoint.address6 if listener.family == socket.AF_INET6 and endpoint.address6 else endpoint.address
        words.append(f"{mapping.protocol}:{listener.fileno()}:{mapping.container_port}:{inner}")
    towards = " ".join(filter(None, (endpoint.address, endpoint.address6)))
    sockets = [listener for _, listener in listeners]
    start_owned("labkit.network.forward", words, sockets, ledger, "forwarder", towards=towards)


def _rules(mapping: PortMapping, endpoint: Endpoint, container: str) -> list[Statement]:
    """The DNAT of one mapping, for each family in which the container can be reached.

    A port of the loopback gets none.  What the machine sends itself never passes prerouting, so a rule
    there serves one kind of packet alone: a neighbour's, for 127.0.0.1, sent to this machine's MAC.
    """
    anywhere = mapping.host == ANY
    found: list[Statement] = []
    if mapping.host.startswith("127.") or mapping.host == "::1":
        return found
    for protocol, address in (("ip", endpoint.address), ("ip6", endpoint.address6)):
        same = (protocol == "ip6") == (":" in mapping.host)
        if not address or not (anywhere or same):
            continue
        to_us = match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
        if not anywhere:
            to_us = match(payload(protocol, "daddr"), mapping.host)
        rule = [
            match(meta("nfproto"), "ipv4" if protocol == "ip" else "ipv6"),
            to_us,
            match(payload(mapping.protocol, "dport"), mapping.host_port),
            COUNTER,
            {"dnat": {"family": protocol, "addr": address, "port": mapping.container_port}},
        ]
        found.append({"add": {"rule": {**WHERE, "chain": "prerouting", "comment": container[:12], "expr": rule}}})
    return found


def unpublish(container: str, ledger: Ledger | None = None) -> None:
    """Remove the container's rules; with its ledger, end its forwarder too."""
    where = {**WHERE, "chain": "prerouting"}
    commands = [{"delete": {"rule": {**where, "handle": rule["handle"]}}} for rule in _written(container)]
    if commands:
        nftables.apply(commands, "cannot remove the published ports")
    if ledger is not None:
        for entry in ledger.entries():
            if entry.kind == "forwarder":
                ledger.release(entry)
                # Until it has died the port is taken, and the next container may want it.
                process.await_end(int(entry.fields["pid"]), int(entry.fields["start"]))


def close_towards(addresses: Sequence[str], container: str, ledger: Ledger) -> None:
    """The same, if the container's ports lead to one of these addresses."""
    # By the ledger: a port of the loopback has a forwarder, and no rule.
    targets = {target for entry in ledger.entries() if entry.kind == "forwarder"
               for target in str(entry.fields.get("towards", "")).split()}  # fmt: skip
    if targets & set(addresses):
        unpublish(container, ledger)


def _written(container: str) -> list[Statement]:
    """The rules that lead into the container."""
    rules = [item["rule"] for item in nftables.ruleset(FAMILY, TABLE) if "rule" in item]
    return [rule for rule in rules if rule.get("comment") == container[:12]]
