"""Beside a real dockerd, in a network namespace of the test: out, in, and Docker's rules as it wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_ground import in_machine

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest

PROGRAM = """
folder = Path(os.environ["LABKIT_RUN"]).parent
log = open(folder / "log", "w")
sh("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")  # dockerd looks for it, and /sys is new here

def until(true, child):
    deadline = time.monotonic() + 200
    while not true():
        assert child.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.5)

# dockerd gives a containerd of its own 15 seconds to start, which is little under emulation.
(folder / "containerd.toml").write_text('version = 2\\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\\n')
words = ["--config", folder / "containerd.toml", "--root", folder / "root", "--state", folder / "state",
         "--address", folder / "containerd"]
containerd = subprocess.Popen(["containerd", *map(str, words)], stdout=log, stderr=log)
until(lambda: (folder / "containerd").exists(), containerd)
words = ["--data-root", folder / "docker", "--exec-root", folder / "exec", "--pidfile", folder / "pid",
         "--host", f"unix://{folder}/socket", "--containerd", folder / "containerd"]
dockerd = subprocess.Popen(["dockerd", *map(str, words)], stdout=log, stderr=log)

def rules():
    return sh("iptables", "-w", "-S")

until(lambda: "-A FORWARD -j DOCKER-USER" in rules(), dockerd)
until(lambda: "API listen on" in (folder / "log").read_text(), dockerd)
assert "-P FORWARD DROP" in rules() and "docker0" in sh("ip", "link")
before = rules()
there = outside()
serve(there, 9000)
pid = new_namespace()
identifier = "c1" * 32
ledger = Ledger(identifier)
endpoint = bridge.attach(identifier, pid, ledger)
configure(pid, endpoint)
ports.publish(ports.parse("8080:80"), endpoint, identifier, ledger)
serve(pid, 80)
seen = [seen_from(pid, "10.99.0.2", 9000), seen_from(there, "10.99.0.1", 8080)]
ports.unpublish(identifier, ledger)
bridge.detach(identifier, ledger)
assert rules() == before and not list(all_ledgers())
for one in (dockerd, containerd):
    one.terminate()
    one.wait(60)
say(seen)
"""


def test_containers_get_out_beside_a_real_dockerd(tmp_path: Path) -> None:
    """Its forward policy is drop; ours are answered by a neighbour and by a published port all the same."""
    assert in_machine(tmp_path, PROGRAM, timeout=540) == ["10.99.0.1", "10.99.0.2"]
