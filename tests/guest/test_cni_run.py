"""The distribution's CNI plugins configure a container of ours in the lab's machine, ports and limits included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cni_ground import PLUGINS
from runtime_ground import IMAGE, Machine

pytest_plugins = ["guest_ground"]
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(
        not Path(PLUGINS, "bridge").exists() or not shutil.which("iptables"),
        reason="the peer is not here: install containernetworking-plugins and iptables (the test image has them)",
    ),
]

# No CHECK: portmap 1.1.1 asks for the rules of an IPv6 address that the container does not have.
# The machine asks the container over the port that portmap publishes; the container answers with its own token.
STORY = """
set -e
labkit() { "$PYTHON" -m labkit "$@"; }
labkit run -d --name web --memory 64m --network cni:lan -p 8080:80 $IMAGE \
    sh -c 'ip -o -4 addr show eth0 > /tmp/index.html; exec httpd -f -p 80 -h /tmp'
n=0; until curl -sf http://10.77.0.1:8080/
do n=$((n+1)); test $n -lt 100; sleep 0.5; done
labkit rm --force web
"""


def test_a_container_with_limits_on_the_real_plugins_network(machine: Machine) -> None:
    """bridge and portmap: the address is the plugin's, the published port leads in, DEL ends it."""
    folder = machine.folder / "net.d"
    folder.mkdir()
    ipam = {"type": "host-local", "dataDir": str(machine.folder / "host-local"),
            "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
    plugins = [{"type": "bridge", "bridge": "cni7", "isGateway": True, "hairpinMode": True, "ipam": ipam},
               {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}]  # fmt: skip
    plain = {"cniVersion": "1.0.0", "name": "lan", "plugins": plugins}
    (folder / "10-lan.conflist").write_text(json.dumps(plain))
    environment = {**machine.environment, "NETCONFPATH": str(folder), "CNI_PATH": PLUGINS, "IMAGE": IMAGE}
    environment |= {"PYTHON": shutil.which("python3", path="/opt/labkit/venv/bin") or "python3"}
    try:
        done = machine.sh("sh", "-c", STORY, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "inet 10.77.0.2/24" in done.stdout
        assert list((machine.folder / "host-local/lan").glob("10.*")) == []
        assert machine.census()["ledgers"] == []
    finally:
        machine.sh("ip", "link", "del", "cni7")
        shutil.rmtree(folder)
