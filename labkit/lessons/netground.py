"""Top floor: pieces of a small internet: a machine, a world outside and containers, each a network namespace.

Owns: what notebook 06 and the checks of its exercises do again and again inside stage
children: a network of one's own that stays quiet, programs with their words in the error,
servers that say who they are, and the questions of somebody who looks for a fault.

Every function here runs in a stage child, and touches the network of that child only.

Read: network_namespaces(7), ip(8) on -batch, arp(7), Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call

# A new namespace copies some of these from the machine; a lesson must not depend on how that is set.
SETTINGS = {
    "ipv6/conf/all/disable_ipv6": "1",  # IPv6 announces itself, and every announcement would be counted
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/neigh/default/base_reachable_time_ms": "3600000",  # who has which address is asked once an hour
    "ipv4/ip_forward": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "bridge/bridge-nf-call-iptables": "0",  # where it is on, rules meet what only crosses a bridge
}


def own_network() -> None:
    """Leave for a network namespace of one's own: its loopback is up, and it says nothing by itself."""
    call("unshare", C.CLONE_NEWNET)
    for knob, value in SETTINGS.items():
        path = Path("/proc/sys/net", knob)
        if path.exists():  # IPv6 and rules for bridges may be missing
            path.write_text(value)
    ip("link set lo up")


def run(*words: str, text: str = "") -> str:
    """A program's output, in this child's network.

    Raises OSError with what the program says when it fails.
    """
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{words[0]} says: {(done.stderr or done.stdout).strip() or 'nothing'}")
    return done.stdout


def ip(*lines: str) -> None:
    """Lines of ip(8), without the word ip, in one go: a program for each would take ten times as long."""
    run("ip", "-batch", "-", text="\n".join(lines) + "\n")


def nft(text: str) -> None:
    """Rules in nft's own language, all or none."""
    run("nft", "-f", "-", text=text)


def pair(name: str, other: str, pid: int) -> None:
    """A cable: `name` here and `other` in the network of process `pid`; nothing is up, nothing has an address."""
    ip(f"link add {name} type veth peer name {other} netns {pid}")


def serve(port: int, word: str, address: str = "0.0.0.0") -> int:
    """Start a TCP server that tells each caller `word` and the caller's address; its pid.

    It ends with the child.
    """
    listener = socket.create_server((address, port), backlog=64)
    pid = os.fork()
    if pid:
        listener.close()
        return pid
    try:
        call("prctl", C.PR_SET_NAME, "server", 0, 0, 0)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        while True:
            caller, (who, _) = listener.accept()
            with caller:
                caller.sendall(f"{word} {who}".encode())
    finally:
        os._exit(1)


def fetch(address: str, port: int, limit: float = 2.0) -> str:
    """What a server says, or why nothing came: "no answer", "Connection refused", "No route to host", ..."""
    try:
        with socket.create_connection((address, port), limit) as line:
            line.settimeout(limit)
            return "".join(iter(lambda: line.recv(1000).decode(), "")) or "an empty answer"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)


def reaches(address: str, size: int = 56, limit: float = 1.0, count: int = 1, source: str = "") -> bool:
    """Whether `count` pings with `size` bytes in them all come back within `limit` seconds."""
    words = ["ping", "-n", "-q", "-c", str(count), "-i", "0.01", "-W", f"{limit:g}", "-s", str(size)]
    words += ["-I", source] if source else []
    done = subprocess.run([*words, address], capture_output=True, text=True)
    return f" {count} received" in done.stdout


def within(seconds: float, question: Callable[..., object], *arguments: object) -> bool:
    """Whether the answer to a question becomes true soon: a device needs a moment to be ready."""
    import time

    deadline = time.monotonic() + seconds
    while not question(*arguments):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def counters(comment: str = "") -> dict[str, int]:
    """{comment of an nft rule: how many packets its counter has met}."""
    found = re.findall(r'counter packets (\d+) bytes \d+.*?comment "([^"]*)"', run("nft", "list", "ruleset"))
    return {name: int(packets) for packets, name in found if comment in name}


def ruleset() -> str:
    """All rules of this network, as nft prints them."""
    return run("nft", "list", "ruleset")


def end(pids: Sequence[int]) -> None:
    """End servers."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def forward(on: bool) -> None:
    """Whether this network passes on what is not for itself."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if on else "0")


def background(trouble: str, function: Callable[..., object], *arguments: object) -> int:
    """Run a function that is not meant to return in a process of its own; its pid.

    What it raises is written into the file `trouble`.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        call("prctl", C.PR_SET_NAME, "background", 0, 0, 0)
        function(*arguments)
        Path(trouble).write_text("it has returned")
    except BaseException as error:
        Path(trouble).write_text(f"it raised {type(error).__name__}: {error}")
    finally:
        os._exit(1)


# --- names --------------------------------------------------------------------------------

RESOLV_CONF = Path("/etc/resolv.conf")


def own_resolver(text: str = "") -> None:
    """A resolv.conf that is this child's alone: a file in memory, mounted over the machine's."""
    call("unshare", C.CLONE_NEWNS)  # children of one fence are in one mount namespace
    call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)
    call("mount", "tmpfs", "/mnt", "tmpfs", 0, None)
    own = Path("/mnt/resolv.conf")
    own.write_text(text)
    call("mount", str(own), str(RESOLV_CONF), None, C.MS_BIND, None)


def resolver(address: str) -> None:
    """Ask this name server, and not for long."""
    RESOLV_CONF.write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")


def lookup(name: str) -> str:
    """The IPv4 address of a name as any program of this child finds it; empty when it does not."""
    done = subprocess.run(["getent", "ahostsv4", name], capture_output=True, text=True)
    return done.stdout.split(maxsplit=1)[0] if done.stdout.strip() else ""


def name_server(address: str, names: Mapping[str, str]) -> None:
    """Answer these names at a UDP address for ever, and say of all others that they do not exist."""
    import dns.message
    import dns.rcode
    import dns.rdatatype
    import dns.rrset

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind((address, 53))
        while True:
            data, caller = here.recvfrom(4096)
            query = dns.message.from_wire(data)
            response, asked = dns.message.make_response(query), query.question[0]
            name = asked.name.to_text(omit_final_dot=True).lower()
            if name not in names:
                response.set_rcode(dns.rcode.NXDOMAIN)
            elif asked.rdtype == dns.rdatatype.A:
                response.answer.append(dns.rrset.from_text(asked.name, 5, "IN", "A", names[name]))
            here.sendto(response.to_wire(), caller)


# --- taking things away that may not be there -----------------------------------------------


def drop_address(address: str, device: str = "eth0") -> None:
    """Remove an address; none is fine."""
    subprocess.run(["ip", "address", "del", address, "dev", device], stderr=subprocess.DEVNULL)


def drop_tables(tables: Sequence[str]) -> None:
    """Remove tables of rules; those that are not there are made first, so that all can go in one transaction."""
    nft("\n".join(f"table ip {name}\ndelete table ip {name}" for name in tables))
