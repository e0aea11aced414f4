"""Ground for the CNI tests: configurations of the distribution's plugins, on a machine of its own.

The plugins keep their addresses below the test's folder; what they do to iptables ends with the
test's network namespace.
"""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from network_ground import in_machine, needs_root

PLUGINS = next((each for each in ("/opt/cni/bin", "/usr/lib/cni") if Path(each, "bridge").exists()), "/usr/lib/cni")
on_machine = [
    *needs_root,
    pytest.mark.skipif(
        not Path(PLUGINS, "bridge").exists() or not shutil.which("iptables"),
        reason="runs CNI plugins: install containernetworking-plugins",
    ),
]

PRELUDE = """
from labkit.network import cni, cni_config, cni_exec, plan
state = Path(os.environ["LABKIT_RUN"])
os.environ["NETCONFPATH"] = str(state / "net.d")
os.environ["CNI_PATH"] = f"{state / 'bin'}:PLUGINS"
(state / "net.d").mkdir(parents=True)
(state / "bin").mkdir()
C1, C2 = "c1" * 32, "c2" * 32

def bridge_plugin(**more):
    return {"type": "bridge", "bridge": "cni7", "isGateway": True,
            "ipam": {"type": "host-local", "dataDir": str(state / "host-local"),
                     "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}, **more}

PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}

def write(name="lan", plugins=None, version="1.0.0", **more):
    plain = {"cniVersion": version, "name": name, "plugins": plugins or [bridge_plugin()], **more}
    (state / "net.d" / f"{name}.conflist").write_text(json.dumps(plain))

def inner(pid, *words):
    return json.loads(sh("nsenter", "-t", str(pid), "-n", "ip", "-j", *words))

def addresses(pid, device="eth0"):
    return sorted(f"{one['local']}/{one['prefixlen']}" for link in inner(pid, "addr", "show", "dev", device)
                  for one in link["addr_info"] if one["scope"] == "global")

def pings(pid, address):
    return subprocess.run(["nsenter", "-t", str(pid), "-n", "ping", "-c1", "-W3", address],
                          capture_output=True).returncode == 0

def held():
    # Addresses that host-local has given out, the machine's cables, and what is mounted for us.
    given = sorted(file.name for file in (state / "host-local").rglob("10.*"))
    cables = [link["ifname"] for link in ip("link") if link.get("linkinfo", {}).get("info_kind") == "veth"]
    mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/netns/" in line]
    return [given, cables, len(mounted), [ledger.owner for ledger in all_ledgers()]]
""".replace("PLUGINS", PLUGINS)


def with_plugins(folder: Path, program: str, timeout: float = 120) -> Any:
    """Run `program` on a machine of its own, with the above at hand."""
    return in_machine(folder, PRELUDE + textwrap.dedent(program), timeout)
