"""`ctr run --cni`: a container of containerd on a network of the kit, by labkit-cni."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from cni_ground import PLUGINS
from runtime_ground import Machine

pytest_plugins = ["guest_ground"]
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(
        not shutil.which("containerd") or not Path(PLUGINS, "loopback").exists(),
        reason="the peer is not here: install containerd and containernetworking-plugins (the test image has them)",
    ),
]

CONFIGURATION = {"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "labkit-cni", "network": "shop"}]}

# ctr takes the first configuration in /etc/cni/net.d and plugins from /opt/cni/bin or Debian's folder, and
# containerd's shims put their sockets below /run, the CNI library its results below /var/lib: all are this
# script's own, laid over the machine's in a mount namespace that goes with it, as do all of its processes.
SCRIPT = r"""
set -e
unset XDG_RUNTIME_DIR  # below /run, where ctr would make its pipes
mkdir -p $D/etc/cni/net.d $D/opt/cni/bin
cp $D/lab.conflist $D/etc/cni/net.d/
cp $D/labkit-cni $PLUGINS/loopback $D/opt/cni/bin/
mount -t overlay -o lowerdir=$D/etc:/etc overlay /etc
mount -t overlay -o lowerdir=$D/opt:/opt overlay /opt
mount --bind $D/etc/cni/net.d /etc/cni/net.d
mount --bind $D/opt/cni/bin /opt/cni/bin
mount --bind $D/opt/cni/bin $PLUGINS
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
cat > $D/config.toml <<END
version = 2
root = "$D/root"
state = "$D/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "$D/socket"
END
containerd -c $D/config.toml --log-level error 2>$D/containerd.log &
ctr() { command ctr --address $D/socket "$@"; }
n=0; until ctr version >/dev/null 2>&1
do n=$((n+1)); test $n -lt 300 || { cat $D/containerd.log; exit 1; }; sleep 0.2; done
ctr images import --snapshotter native $D/image.tar >/dev/null
image=$(ctr images ls -q | head -n 1)
"""
# One container that stays, one that talks to it by name; what the machine holds is looked at between.
# In the foreground of a shell's job: ctr calls DEL when a container ends that it watches.
STORY = r"""
run() { ctr run --rm --snapshotter native --cni $image "$@"; }
run stays sh -c 'echo token-of-the-first > /tmp/index.html; exec httpd -f -p 80 -h /tmp' &
stays=$!
n=0; until curl -sfo /dev/null http://$ADDRESS/
do kill -0 $stays; n=$((n+1)); test $n -lt 600; sleep 0.5; done
echo PLAN "$(cat $LABKIT_RUN/network/shop.json)"
echo INSIDE "$(ctr tasks exec --exec-id look stays ip -o -4 addr show eth0)"
echo SAID "$(run asks sh -c "nslookup default-stays $GATEWAY | grep $ADDRESS >/dev/null && wget -qO- http://$ADDRESS/")"
ctr tasks kill -s KILL stays
wait $stays || true
echo AFTER "$(cat $LABKIT_RUN/network/shop.json)"
"""

# What containerd and runc leave: their cgroup, and the controllers that they had handed on.
# What runc hands on is taken back, but for what was handed on before: $HANDED.
LEFT = """
cd /sys/fs/cgroup && rmdir default
for one in $(cat cgroup.subtree_control); do
    case " $HANDED " in *" $one "*) ;; *) echo -$one > cgroup.subtree_control ;; esac
done
"""


def test_containerd_puts_a_container_on_the_kits_network(machine: Machine, tmp_path: Path) -> None:
    """Address and route as the plan says, found by name, reached from a second container; DEL gives all back."""
    before = machine.census()
    handed = machine.sh("cat", "/sys/fs/cgroup/cgroup.subtree_control").stdout.strip()
    assert machine.labkit("network", "create", "shop").returncode == 0
    network = json.loads((machine.folder / "run/network/shop.json").read_text())
    try:
        (tmp_path / "lab.conflist").write_text(json.dumps(CONFIGURATION))
        program = tmp_path / "labkit-cni"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m labkit.network.cni_plugin "$@"\n')
        program.chmod(0o755)
        shutil.make_archive(str(tmp_path / "image"), "tar", machine.data / "images")
        first = network["gateway"].rpartition(".")[0] + ".2"
        done = machine.sh(
            *["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT + STORY],
            timeout=900,
            env={
                **machine.environment,
                "D": str(tmp_path),
                "PLUGINS": PLUGINS,
                "GATEWAY": network["gateway"],
                "ADDRESS": first,
                "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            },
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.split(" ", 1)[0].isupper())
        assert json.loads(said["AFTER"])["containers"] == {}  # DEL, while the machine goes on
        (member,) = json.loads(said["PLAN"])["containers"].values()
        assert (member["name"], member["v4"]) == ("default-stays", first)
        assert f"inet {first}/" in said["INSIDE"]
        assert said["SAID"] == "token-of-the-first"
    finally:
        machine.sh("sh", "-c", LEFT, env={**machine.environment, "HANDED": handed})
        assert machine.labkit("network", "rm", "shop").returncode == 0
    assert machine.census() == before
