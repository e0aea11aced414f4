"""Floor 2: published ports: a port of the machine that leads into a container.

Owns: what -p means; the DNAT rule for those who come from outside, which keeps their
address; and a forwarder for those who come over the machine's loopback, where DNAT does
not reach.  The forwarder also holds the port, so that nobody else can.

Read: nft(8) on dnat and fib; Documentation/networking/ip-sysctl.rst on route_localnet.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from labkit.errors import BadInput, InUse, LabError
from labkit.kernel import nftables, process
from labkit.kernel.ledger import Ledger
from labkit.kernel.nftables import match, payload
from labkit.network.bridge import FAMILY, TABLE
from labkit.network.endpoint import Endpoint

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class PortMapping(NamedTuple):
    """One -p; host port 0 means: any that is free."""

    host: str
    host_port: int
    container_port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.host}:{self.host_port}->{self.container_port}/{self.protocol}"


def parse(text: str) -> PortMapping:
    """[IP:][PORT:]PORT[/tcp|udp], as docker run -p. Raises BadInput."""
    form = r"(?:(?P<ip>\d+(?:\.\d+){3}):)?(?:(?P<host>\d*):)?(?P<inner>\d+)(?:/(?P<protocol>\w+))?"
    match_ = re.fullmatch(form, text)
    wrong = ""
    if match_ is None:
        wrong = "ranges and IPv6 addresses are not understood yet" if re.search(r"\d-\d|\[", text) else "no such form"
    else:
        protocol = match_["protocol"] or "tcp"
        numbers = [int(match_["host"] or 0), int(match_["inner"])]
        if protocol not in PROTOCOLS:
            wrong = f"{protocol!r} is not tcp or udp"
        elif not 1 <= numbers[1] <= 65535 or numbers[0] > 65535:
            wrong = "a port is a number from 1 to 65535"
        else:
            try:
                socket.inet_aton(match_["ip"] or "0.0.0.0")
                return PortMapping(match_["ip"] or "0.0.0.0", numbers[0], numbers[1], protocol)
            except OSError:
                wrong = f"{match_['ip']!r} is no address"
    raise BadInput(f"--publish {text!r} cannot be understood", why=wrong, next="for example --publish 8080:80")


def publish(mappings: Sequence[PortMapping], endpoint: Endpoint, container: str, ledger: Ledger) -> list[PortMapping]:
    """Open the ports; return them with the numbers that were chosen for 0.

    Raises InUse, naming who holds a port; nothing is open then.
    """
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(_listen(mapping)) for mapping in mappings]
        chosen = [
            mapping._replace(host_port=listener.getsockname()[1])
            for mapping, listener in zip(mappings, listeners, strict=True)
        ]
        _start_forwarder(listeners, chosen, endpoint, ledger)
    nftables.apply([_rule(mapping, endpoint, container) for mapping in chosen], "cannot publish the ports")
    return chosen


def _listen(mapping: PortMapping) -> socket.socket:
    listener = socket.socket(socket.AF_INET, PROTOCOLS[mapping.protocol])
    try:
        if mapping.protocol == "tcp":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((mapping.host, mapping.host_port))
        if mapping.protocol == "tcp":
            listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == 98:  # EADDRINUSE
            raise InUse(
                f"port {mapping.host_port}/{mapping.protocol} of {mapping.host} is taken",
                why=holder(mapping) or "somebody listens there already",
                next=f"another port: --publish {mapping.host_port + 1}:{mapping.container_port}",
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


def _start_forwarder(
    listeners: list[socket.socket], mappings: list[PortMapping], endpoint: Endpoint, ledger: Ledger
) -> None:
    words = [
        f"{mapping.protocol}:{listener.fileno()}:{endpoint.address}:{mapping.container_port}"
        for mapping, listener in zip(mappings, listeners, strict=True)
    ]
    # Its end of this pipe tells it that we died before we could write it down.
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "labkit.network.forward", str(reading), *words],
        pass_fds=[reading, *(listener.fileno() for listener in listeners)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reading)
    ledger.record("process", pid=child.pid, start=process.start_time(child.pid) or 0)
    os.write(writing, b"written down")
    os.close(writing)
    child.returncode = 0  # its end is the ledger's business, not this object's


def _rule(mapping: PortMapping, endpoint: Endpoint, container: str) -> nftables.Statement:
    to_us = match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    if mapping.host != "0.0.0.0":
        to_us = match(payload("ip", "daddr"), mapping.host)
    return {
        "add": {
            "rule": {
                "family": FAMILY,
                "table": TABLE,
                "chain": "prerouting",
                "comment": container[:12],
                "expr": [
                    to_us,
                    match(payload(mapping.protocol, "dport"), mapping.host_port),
                    {"dnat": {"addr": endpoint.address, "port": mapping.container_port}},
                ],
            }
        }
    }


def unpublish(container: str) -> None:
    """Remove the container's rules; its forwarder is a process in its ledger."""
    handles = [
        item["rule"]["handle"]
        for item in nftables.ruleset(FAMILY, TABLE)
        if item.get("rule", {}).get("comment") == container[:12]
    ]
    if handles:
        where = {"family": FAMILY, "table": TABLE, "chain": "prerouting"}
        commands = [{"delete": {"rule": {**where, "handle": handle}}} for handle in handles]
        nftables.apply(commands, "cannot remove the published ports")
