"""The same limits under labkit and under runc: the same files, or a difference that stands in a table here.

runc gets labkit's own linux.resources.  Both run in a machine within the machine, which does not hand cpuset
on: runc hands on whatever it finds, and switching cpuset on has cost an emulated machine its life.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_ground import IMAGE, Machine

from labkit.image.store import Store
from labkit.kernel import bpf, cgroups
from labkit.kernel import constants as C
from labkit.kernel.cgroups import io
from labkit.runtime import cgroup_texts, defaults, flags

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest

LIMITS = ("memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.high", "memory.swap.max",
          "memory.oom.group", "memory.zswap.max", "cpu.max", "cpu.max.burst", "cpu.weight", "cpu.weight.nice",
          "cpu.idle", "pids.max", "io.max", "io.weight", "io.bfq.weight", "cgroup.type", "cgroup.freeze",
          "cgroup.max.depth", "cgroup.max.descendants", "cgroup.subtree_control", "cgroup.controllers")  # fmt: skip
FLAGS = ("--memory", "256m", "--memory-swap", "320m", "--memory-reservation", "64m", "--cpus", "0.5",
         "--cpu-shares", "512", "--pids-limit", "77", "--blkio-weight", "500")  # fmt: skip
# file: (labkit's, runc's, why).  Nothing differs with runc 1.1.
DIFFERENCES: dict[str, tuple[str, str, str]] = {}
# Opened for reading, each under a name that no image has: only the rules for devices decide.
NODES = ("c 1 1", "c 1 3", "c 1 5", "c 1 7", "c 1 8", "c 1 9", "c 1 11", "c 5 2", "c 10 200", "c 10 229", "b 254 0")
# node: (opens under labkit, opens under runc, why).
OPENED_DIFFERENTLY = {
    "c 10 200": (False, True, "runc up to 1.1 opens /dev/net/tun to every container; 1.2 and Docker's own list do not"),
}
OPENING = (
    "cd /t; "
    + "; ".join(f"mknod n{n} {node} && (: <n{n}) 2>&1 && echo {n} opens" for n, node in enumerate(NODES))
    + "; true"
)


@pytest.fixture(autouse=True)
def with_io(machine: Machine) -> Iterator[str]:
    """io for the machine too; yields the machine's disk. Afterwards nothing more is handed on than before."""
    top = machine.group.parent
    before = text(top)
    new = cgroups.enable(cgroups.root(), {"io"})
    yield io.device("/")
    # runc and crun hand on every controller that they find, and leave it so.
    cgroups.disable(top, set(text(top).split()) - set(before.split()))
    cgroups.disable(cgroups.root(), new)
    assert text(top) == before


def text(group: Path) -> str:
    """What this cgroup hands on."""
    return (group / "cgroup.subtree_control").read_text()


def files(group: Path) -> dict[str, str]:
    """The limits of a cgroup, word for word."""
    return {name: (group / name).read_text().strip() for name in LIMITS if (group / name).exists()}


def layer(machine: Machine) -> Path:
    """The unpacked image; it has one layer, whose chain id is its diff id.  Other tests' images lie beside it."""
    (diff_id,) = Store(machine.data / "images").get(IMAGE).config.diff_ids
    return machine.data / "layers" / diff_id.removeprefix("sha256:")


def bundle(machine: Machine, folder: Path, resources: dict[str, Any], *arguments: str) -> Path:
    """A root file system and a config.json with these resources, for runc."""
    machine.said("true")  # unpacks the image, if nothing has yet
    shutil.copytree(layer(machine), folder / "rootfs", symlinks=True)
    for name in ("proc", "dev", "sys", "t"):
        (folder / "rootfs" / name).mkdir(exist_ok=True)
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["process"].update(terminal=False, args=list(arguments))
    for one in config["process"]["capabilities"].values():
        one.append("CAP_MKNOD")
    config["root"]["readonly"] = False
    config["mounts"].append({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []})
    config["linux"].update(resources=resources, cgroupsPath="/runc-peer")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def forget(machine: Machine, *runtime: str) -> None:
    """Delete the peer's container; runc gives its cgroup up where the killed process is not gone at once."""
    machine.sh(*runtime, "delete", "--force", "peer")
    cgroups.remove(machine.group.parent / "runc-peer")


def test_the_same_limits_end_in_the_same_files(machine: Machine, with_io: str, tmp_path: Path) -> None:
    """Each limit's file, word for word, and one device program each; what differs stands in the table."""
    rates = ["--device-read-bps", "/dev/vda:1mb", "--device-write-iops", "/dev/vda:100"]
    assert io.device("/dev/vda") == with_io
    machine.labkit("run", "-d", "--network", "none", "--name", "ours", *FLAGS, *rates, IMAGE, "sleep", "1000")
    runc = ["runc", "--root", str(tmp_path / "runc")]
    try:
        (one,) = machine.states()
        top = machine.group.parent
        config = json.loads((machine.data / "containers" / one["id"] / "config.json").read_text())
        made = bundle(machine, tmp_path / "bundle", config["linux"]["resources"], "/bin/sleep", "1000")
        # What it starts keeps the streams: files, not pipes.
        with (tmp_path / "said").open("w") as said:
            done = machine.sh(*runc, "create", "--bundle", str(made), "peer", capture_output=False, stdout=said,
                              stderr=said, stdin=subprocess.DEVNULL)  # fmt: skip
        assert done.returncode == 0, (tmp_path / "said").read_text()
        ours, theirs = files(top / one["cgroup"].lstrip("/")), files(top / "runc-peer")
        assert ours["io.max"] and ours["memory.max"] == "268435456" and ours["pids.max"] == "77"
        differing = {
            name: (ours.get(name, "-"), theirs.get(name, "-"))
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        }
        assert differing == {name: row[:2] for name, row in DIFFERENCES.items()}
        for group in (top / one["cgroup"].lstrip("/"), top / "runc-peer"):
            assert len(bpf.attached(group, C.BPF_CGROUP_DEVICE)) == 1, group
    finally:
        forget(machine, *runc)
        machine.labkit("rm", "--force", "ours")


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_conversions_are_the_runtimes_own(machine: Machine, with_io: str, tmp_path: Path, runtime: str) -> None:
    """Shares, weight, swap and reservation in the OCI document become the numbers that this runtime writes."""
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not here: only the machine for the tests has it")
    wanted = flags.resources({"cpu_shares": "1024", "blkio_weight": "300", "memory": "64m", "memory_swap": "96m",
                              "memory_reservation": "32m", "cpu_quota": "20000", "cpu_period": "50000"})  # fmt: skip
    group = machine.group.parent / "runc-peer"
    made = bundle(machine, tmp_path / "bundle", wanted, "/bin/sleep", "1000")
    words = [runtime, "--root", str(tmp_path / "state")]
    with (tmp_path / "said").open("w") as said:
        done = machine.sh(*words, "create", "--bundle", str(made), "peer", capture_output=False, stdout=said,
                          stderr=said, stdin=subprocess.DEVNULL)  # fmt: skip
    try:
        assert done.returncode == 0, (tmp_path / "said").read_text()
        ours = cgroup_texts.files(wanted, bfq=(group / "io.bfq.weight").exists())
        assert {"cpu.weight", "cpu.max", "memory.low", "memory.swap.max"} < set(ours)
        theirs = {name: (group / name).read_text().strip().removeprefix("default ") for name in ours}
        assert theirs == ours
    finally:
        forget(machine, *words)


def test_the_same_devices_open(machine: Machine, tmp_path: Path) -> None:
    """Every node may be made; which ones open is the same; the machine's memory and disk do not: EPERM."""
    ours = machine.said(f"mkdir /t; mount -t tmpfs none /t; {OPENING}", "--cap-add", "SYS_ADMIN")
    made = bundle(machine, tmp_path / "bundle", {"devices": defaults.DEVICE_RULES}, "sh", "-c", OPENING)
    done = machine.sh("runc", "--root", str(tmp_path / "runc"), "run", "--bundle", str(made), "peer",
                      stdin=subprocess.DEVNULL)  # fmt: skip
    mine, peers = opened(ours), opened(done.stdout)
    differing = {node: (node in mine, node in peers) for node in NODES if (node in mine) != (node in peers)}
    assert differing == {node: row[:2] for node, row in OPENED_DIFFERENTLY.items()}, done.stderr
    assert mine == {"c 1 3", "c 1 5", "c 1 7", "c 1 8", "c 1 9"}, ours
    for node in ("c 1 1", "c 1 11", "c 10 200", "c 10 229", "b 254 0"):
        assert f"can't open n{NODES.index(node)}: Operation not permitted" in ours, ours


def opened(said: str) -> set[str]:
    """The nodes that OPENING could open."""
    return {NODES[int(line.split()[0])] for line in said.splitlines() if line.endswith(" opens")}
