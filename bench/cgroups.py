"""`python -m bench.cgroups`: a container's cgroup, set up and removed: labkit against crun, in the lab's machine.

crun does it within a run, so its part is the difference of two runs: with its cgroup manager, and with
none (--cgroup-manager=disabled).  labkit's part is timed where `labkit run` does it: the cgroup, the same
limits, the device program, a process born inside, and the removal.  All take turns, so that whatever else
the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench import machine
from bench.race import Contestant, once, turns
from labkit.errors import LabError
from labkit.image import layers, store
from labkit.kernel import cgroups, syscalls
from labkit.kernel.cgroups import devices
from labkit.kernel.ledger import Ledger
from labkit.runtime import container, defaults, flags
from labkit.runtime.groups import cgroupfs

IMAGE = "localhost:5000/busybox"
ROUNDS = 15
LIMITS = {"memory": "256m", "cpus": "0.5", "pids_limit": "100", "memory_reservation": "64m"}


def main() -> int:
    """Race, and print one line a contestant and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.cgroups", description="cgroup set-up against crun's")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--view", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.view is None:
            check()
            return machine.within("v2", "bench.cgroups", "--rounds", str(given.rounds))
        machine.arrange("v2")
        return run(given.rounds)
    except LabError as error:
        print(f"bench.cgroups: {error}", file=sys.stderr)
        return error.status


def check() -> None:
    """Raise LabError where this cannot be raced."""
    container.require_root()
    if shutil.which("crun") is None:
        raise LabError("crun is not here", why="only the machine for the tests has it", next="apt-get install crun")
    cgroups.require({"cpu", "memory", "pids"}, {})


def run(rounds: int) -> int:
    """The race, in the machine of its own. Raises LabError when a contestant fails."""
    resources = {**flags.resources(LIMITS), "devices": defaults.DEVICE_RULES}
    with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
        place = Path(folder)
        os.environ["LABKIT_RUN"] = str(place / "run")
        bundle(place, resources)
        crun = ["crun", "--root", str(place / "crun"), "--cgroup-manager"]
        tail = ["run", "--bundle", folder, "bench"]
        contestants = {
            "crun": Contestant("crun", [*crun, "cgroupfs", *tail]),
            "crun without": Contestant("crun without cgroups", [*crun, "disabled", *tail]),
        }
        ours(resources)  # the common cgroup stays, as with other containers about; crun leaves its own controllers on
        times: dict[str, list[float]] = {name: [] for name in ("labkit", *contestants)}
        for number in range(-1, rounds):
            for turn in turns(len(times), max(number, 0)):
                name = list(times)[turn]
                seconds = once(contestants[name]) if name in contestants else ours(resources)
                if number >= 0:
                    times[name].append(seconds)
        container.release_cgroup_parent("labkit-bench")
    report(times)
    return 0


def bundle(place: Path, resources: dict[str, Any]) -> None:
    """busybox and a config.json with the limits, for crun."""
    (layer, *_) = layers.layer_folders(store.Store().obtain(IMAGE))
    shutil.copytree(layer, place / "rootfs", symlinks=True)
    subprocess.run(["crun", "spec"], cwd=place, check=True)
    config = json.loads((place / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/true"])
    config["linux"].update(resources=resources, cgroupsPath="/bench-crun")
    (place / "config.json").write_text(json.dumps(config))


def ours(resources: dict[str, Any]) -> float:
    """Seconds for one cgroup, from the first look at the tree until nothing is left of it."""
    identifier = uuid.uuid4().hex * 2
    config = {"linux": {"resources": resources, "cgroupsPath": f"/labkit-bench/{identifier}"}}
    ledger = Ledger(identifier)
    began = time.perf_counter()
    group = container.make_cgroup(config, ledger)
    cgroupfs.apply(str(group), resources)
    devices.fence(group, devices.rules(resources["devices"]))
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    pid = syscalls.clone3(0, cgroup_fd=fd)
    if pid == 0:
        os._exit(0)
    os.close(fd)
    os.waitpid(pid, 0)
    ledger.release_all()
    return time.perf_counter() - began


def report(times: dict[str, list[float]]) -> None:
    """Medians, crun's part in two ways (a difference of neighbours, and of medians), and the ratio to each."""
    middle = {name: statistics.median(found) for name, found in times.items()}
    each = statistics.median(a - b for a, b in zip(times["crun"], times["crun without"], strict=True))
    for name, seconds in middle.items():
        print(f"{name:<22} {1e3 * seconds:8.1f} ms  (median of {len(times[name])})")
    for name, part in (("round by round", each), ("of the medians", middle["crun"] - middle["crun without"])):
        ratio = f"{middle['labkit'] / part:.2f}" if part > 0 else "no ratio: the machine is too busy"
        print(f"{'its part ' + name:<22} {1e3 * part:8.1f} ms   labkit / crun {ratio}")


if __name__ == "__main__":
    sys.exit(main())
