"""Ground for the network tests: a small machine of its own for each test.

`in_machine` runs a program in new network, mount and process namespaces with its own
/sys, /proc and state folders; all that the program started ends with it.  This machine's
own namespaces are never touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")]

PRELUDE = """
import json, os, signal, socket, subprocess, sys, threading, time
from pathlib import Path
from labkit.errors import InUse, LabError
from labkit.kernel import nftables, rtnetlink
from labkit.kernel.ledger import Ledger, all_ledgers
from labkit.kernel.netlink import Netlink
from labkit.kernel import loopback
from labkit.network import bridge, inside, names, ports

def sh(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout

def ip(*words):
    return json.loads(sh("ip", "-j", "-d", *words) or "[]")

def still(value):
    # Without counters, which packets of the machine's own (IPv6 looks for routers) move on, and handles.
    if isinstance(value, dict):
        return {key: None if key in ("counter", "handle") else still(one) for key, one in value.items()}
    return [still(one) for one in value] if isinstance(value, list) else value

def census():
    listed = json.loads(sh("nft", "-j", "list", "ruleset"))["nftables"]
    rules = still([item for item in listed if "metainfo" not in item])
    links = sorted((link["ifname"], link["address"], "UP" in link["flags"]) for link in ip("link"))
    routes = sorted(route["dst"] for route in ip("route"))
    return [links, routes, rules, bridge.FORWARDING.read_text()]

def new_namespace():
    child = subprocess.Popen(["unshare", "-n", "sleep", "600"])
    while os.readlink(f"/proc/{child.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.002)
    return child.pid

def within(pid, code):
    # A Python program in the network namespace of pid, with our modules.
    text = "import socket, sys, json\\n" + code
    return subprocess.Popen(["nsenter", "-t", str(pid), "-n", sys.executable, "-c", text],
                            stdout=subprocess.PIPE, text=True)

def configure(pid, endpoint):
    code = "from labkit.network import inside, endpoint\\n"
    code += f"inside.configure(endpoint.Endpoint.from_json({endpoint.to_json()!r}))"
    assert within(pid, code).wait() == 0

# Answers each connection with the address that it sees, and says when it listens.
SERVER = '''
s = socket.create_server(("0.0.0.0", PORT))
print("ready", flush=True)
while True:
    c, a = s.accept()
    c.sendall(a[0].encode())
    c.close()
'''

def serve(pid, port):
    server = within(pid, SERVER.replace("PORT", str(port)))
    assert server.stdout.readline() == "ready\\n"

def seen_from(pid, host, port):
    code = f"print(socket.create_connection(({host!r}, {port}), 5).recv(99).decode())"
    child = within(pid, code)
    return child.communicate(timeout=10)[0].strip()

def seen_here(host, port):
    with socket.create_connection((host, port), 5) as connection:
        return connection.recv(99).decode()

def reset():
    # As `labkit reset` does: every ledger, processes first; then the network's plan.
    for ledger in list(all_ledgers()):
        ledger.release_all()
    bridge.reset()

def outside():
    # A neighbour of this machine: 10.99.0.1 here, 10.99.0.2 there, no route to containers.
    pid = new_namespace()
    sh("ip", "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    sh("ip", "addr", "add", "10.99.0.1/24", "dev", "out0")
    sh("ip", "link", "set", "out0", "up")
    sh("nsenter", "-t", str(pid), "-n", "ip", "addr", "add", "10.99.0.2/24", "dev", "eth0")
    sh("nsenter", "-t", str(pid), "-n", "ip", "link", "set", "eth0", "up")
    return pid

def say(value):
    print("ANSWER " + json.dumps(value), flush=True)

loopback.up()
"""


def in_machine(folder: Path, program: str, timeout: float = 120) -> Any:
    """Run `program` on a machine of its own; what it gave to say(), or a failed test with its words."""
    environment = {**os.environ, "LABKIT_RUN": str(folder / "run"), "LABKIT_DATA": str(folder / "data")}
    text = 'mount -t sysfs sysfs /sys && exec "$@"'
    done = subprocess.run(
        [
            *["unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c"],
            text,
            "sh",
            sys.executable,
            "-c",
            PRELUDE + textwrap.dedent(program),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return json.loads(answers[-1].removeprefix("ANSWER ")) if answers else None
