"""python -m bench [--quick]: labkit against podman, runc and umoci, as ratios with medians.

Owns: who races over what, the table, and the aims.  What has a ground of its own is
measured last, by the other modules of this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import images, machine
from bench.race import Contestant, Times, race, ratio
from labkit.errors import LabError
from labkit.lab import state
from tests import run as tests_run

UNFIT = 3  # exit status: not everybody works in this view of the cgroups
ROUNDS = {"import": (31, 5), "start": (31, 5), "unpack": (7, 3)}  # in full, and with --quick
BIN = Path(sys.executable).parent
# Without CAP_SYS_RESOURCE, as in many sandboxes, podman could not raise its own defaults.
PODMAN_RUN = ["run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
              "--pids-limit", "0"]  # fmt: skip
BARE = "python -c pass"
LOADS = "import labkit.runtime.commands, labkit.runtime.run, labkit.image.layers"
UNPACK = "import sys; from labkit.image import layers, store; layers.layer_folders(store.Store().find(sys.argv[1]))"


class Row(NamedTuple):
    """One line of the table: labkit and a peer over the same thing."""

    what: str
    mine: list[float]
    peer: str
    theirs: list[float]
    show: Callable[[float], str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description="labkit against its peers, as ratios")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a smaller image")
    parser.add_argument("--ground", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--view", choices=machine.VIEWS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.view:
            return inside(given.ground, given.view, given.quick)
        return outside(given.quick)
    except LabError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return error.status


def outside(quick: bool) -> int:
    """Provide the tools, make the ground, and race in the first view in which everybody runs."""
    if os.geteuid() != 0:
        raise LabError(
            "containers are raced, and these need root", next=f"sudo make bench, or sudo {BIN}/python -m bench"
        )
    tests_run.provide(tests_run.BENCH_TOOLS)
    with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
        ground = Path(folder)
        say("making the images")
        images.build(ground / "images", small=quick)
        # labkit's store: one layout with all images; umoci and podman read the same blobs.
        store, entries = ground / "data/images", []
        for name in ("busybox", *images.UNPACKED):
            shutil.copytree(ground / "images" / name, store, dirs_exist_ok=True)
            entries += json.loads((ground / f"images/{name}/index.json").read_text())["manifests"]
        (store / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        bundle(ground)
        for view, said in machine.VIEWS.items():
            say(f"in a machine with {said}")
            status = machine.within(view, "bench", "--ground", folder, *(["--quick"] if quick else []))
            if status != UNFIT:
                further(quick)
                return status
    raise LabError("there is no view of the cgroups here in which labkit, podman and runc all run")


def further(quick: bool) -> None:
    """Programs of their own, which print numbers and aims: builds, looking, networks, cgroups in the lab's machine."""
    runtimes = "9 --at-once-rounds 3 --engine-rounds 3"  # twenty at once, and podman, take a second each
    rounds = {"bench.runtimes": runtimes, "bench.builds": "5", "bench.observe": "5", "bench.live": "",
              "bench.networks": "3", "bench.cgroups": "5"}  # fmt: skip
    in_the_lab = {"bench.builds": "builds against docker's", "bench.cgroups": "a container's cgroup against crun's",
                  "bench.runtimes": "runtimes with crun among them"}  # fmt: skip
    for name, few in [*rounds.items(), ("bench.builds in the lab", "3"), ("bench.runtimes in the lab", runtimes)]:
        say(f"further: {name}")
        words = [sys.executable]
        name, _, elsewhere = name.partition(" ")
        # Where version 2 has the controllers, and crun and dockerd run.
        if name == "bench.cgroups" or elsewhere:
            if not state.running():
                print(
                    f"\n{in_the_lab[name]}: not measured, no lab is running (labkit lab up --variant test)", flush=True
                )
                continue
            words = [
                str(BIN / "labkit"),
                "guest",
                "exec",
                "--",
                "env",
                "PYTHONPATH=/lab",
                "/opt/labkit/venv/bin/python",
            ]
        print(flush=True)
        subprocess.run([*words, "-m", name, *(["--rounds", *few.split()] if (quick or elsewhere) and few else [])])


def bundle(ground: Path) -> None:
    """The root file system of busybox, for podman and runc, and a config.json without limits and network."""
    target = ground / "bundle"
    words = ["umoci", "unpack", "--image", f"{ground}/images/busybox:{images.BUSYBOX}", str(target)]
    subprocess.run(words, check=True, capture_output=True)
    (target / "config.json").unlink()  # umoci's grants and mounts differ; runc's own is what runc offers
    subprocess.run(["runc", "spec"], cwd=target, check=True)
    config = json.loads((target / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/true"])
    config["root"]["path"] = str(target / "rootfs")
    config["linux"]["cgroupsPath"] = "/runc"
    (target / "config.json").write_text(json.dumps(config))


def inside(ground: Path, view: str, quick: bool) -> int:
    """As process 1 of the machine: race, and print the table."""
    machine.arrange(view)
    # Measured as people have it: compiled once, then read from __pycache__.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"LABKIT_RUN": str(ground / "run"), "LABKIT_DATA": str(ground / "data")}
    runtimes = starters(ground)
    try:
        race(runtimes, 1, environment)
    except LabError as error:
        say(f"not here: {error}")
        return UNFIT
    rounds = {name: both[quick] for name, both in ROUNDS.items()}
    say("racing: import, start, unpack")
    imports = race(importers(), rounds["import"], environment)
    starts = race(runtimes, rounds["start"], environment)
    in_memory(ground)
    unpacks = {name: race(unpackers(ground, name), rounds["unpack"], environment) for name in images.UNPACKED}
    sizes = {name: images.sizes(ground / "images" / name) for name in images.UNPACKED}
    rows = table(imports, starts, unpacks, sizes)
    print_report(rows, view, rounds, sizes, runtimes)
    print_aims(imports, starts, unpacks)
    return 0


def starters(ground: Path) -> list[Contestant]:
    """/bin/true in a container without network and limits, removed at once."""
    podman = ["podman", "--runtime", "runc", "--root", f"{ground}/podman", "--runroot", f"{ground}/podman-run",
              "--tmpdir", f"{ground}/podman-tmp", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
              "--log-level", "error"]  # fmt: skip
    return [
        Contestant(
            "labkit run", [str(BIN / "labkit"), "run", "--rm", "--network", "none", images.BUSYBOX, "/bin/true"]
        ),
        Contestant("podman run", [*podman, *PODMAN_RUN, "--rootfs", f"{ground}/bundle/rootfs", "/bin/true"]),
        Contestant("runc run", ["runc", "--root", f"{ground}/runc", "run", "--bundle", f"{ground}/bundle", "bench"]),
    ]


def importers() -> list[Contestant]:
    """A new interpreter that does nothing, imports labkit, or imports all that `labkit run` does."""
    codes = {BARE: "pass", "import labkit": "import labkit", "labkit run's modules": LOADS}
    return [Contestant(name, [sys.executable, "-c", code]) for name, code in codes.items()]


def in_memory(ground: Path) -> None:
    """What is unpacked goes into memory: a disk that has just deleted ten thousand files makes new ones slowly."""
    for place in ("data/layers", "unpacked"):
        (ground / place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(ground / place)], check=True)


def unpackers(ground: Path, name: str) -> list[Contestant]:
    """An image's layers out of the same blobs, into memory, to a place where nothing is yet."""
    layers, target = ground / "data/layers", ground / "unpacked"
    image, layout = images.UNPACKED[name], f"{ground}/images/{name}:{images.UNPACKED[name]}"
    podman = ["podman", "--runtime", "runc", "--root", f"{target}/podman", "--runroot", f"{ground}/podman-run",
              "--tmpdir", f"{ground}/podman-tmp", "--storage-driver", "overlay", "--events-backend", "file",
              "--log-level", "error"]  # fmt: skip

    def clear() -> None:
        subprocess.run([*podman, "rmi", "--all", "--force"], capture_output=True, check=True)
        shutil.rmtree(target / "umoci", ignore_errors=True)
        for folder in layers.iterdir():
            shutil.rmtree(folder)

    return [
        Contestant("labkit", [sys.executable, "-c", UNPACK, image], clear),
        Contestant("umoci unpack", ["umoci", "unpack", "--image", layout, f"{target}/umoci"], clear),
        Contestant("umoci raw unpack", ["umoci", "raw", "unpack", "--image", layout, f"{target}/umoci"], clear),
        Contestant("podman pull", [*podman, "pull", "--quiet", f"oci:{layout}"], clear),
    ]


def table(imports: Times, starts: Times, unpacks: dict[str, Times], sizes: dict[str, tuple[int, int]]) -> list[Row]:
    """Every comparison that was raced."""
    rows = [Row("start /bin/true", starts["labkit run"], peer, starts[peer], ms) for peer in ("podman run", "runc run")]
    for name, times in unpacks.items():
        what = f"unpack {sizes[name][0] / 1e6:.0f} MB, {sizes[name][1]} files"
        rows += [Row(what, times["labkit"], peer, times[peer], ms) for peer in times if peer != "labkit"]
    return rows + [Row(name, imports[name], BARE, imports[BARE], ms) for name in imports if name != BARE]


def ms(seconds: float) -> str:
    """Milliseconds, for people."""
    return f"{seconds * 1e3:.1f} ms"


def print_report(
    rows: list[Row], view: str, rounds: dict[str, int], sizes: dict[str, tuple[int, int]], runtimes: list[Contestant]
) -> None:
    """The machine, and the table."""
    print(f"\nmachine: {os.cpu_count()} cores ({cpu()}), Linux {platform.release()}, load {os.getloadavg()[0]:.1f},")
    print(f"         {machine.VIEWS[view]}; Python {platform.python_version()}, {', '.join(versions())}")
    print(
        f"rounds:  {', '.join(f'{name} {count}' for name, count in rounds.items())}; taking turns, one run not counted"
    )
    listed = " and ".join(f"{plain / 1e6:.0f} MB in {entries} files and folders" for plain, entries in sizes.values())
    print(f"images:  {listed}, gzip, in the page cache, unpacked into memory")
    print("ratio:   labkit's time in the peer's, median of the rounds (quartiles); below 1 labkit is faster\n")
    line = "{:<30}{:>12}   {:<18}{:>12}   {}"
    print(line.format("what", "labkit", "peer", "peer's", "ratio"))
    for row in rows:
        each = ratio(row.mine, row.theirs)
        mine, theirs = (row.show(statistics.median(times)) for times in (row.mine, row.theirs))
        print(line.format(row.what, mine, row.peer, theirs, f"{each.median:.2f} ({each.low:.2f} to {each.high:.2f})"))


def print_aims(imports: Times, starts: Times, unpacks: dict[str, Times]) -> None:
    """Each aim, met or missed."""
    against = ratio(starts["labkit run"], starts["podman run"]).median
    whole = statistics.median(imports["import labkit"])
    alone = statistics.median(a - b for a, b in zip(imports["import labkit"], imports[BARE], strict=True))
    peers = ("umoci unpack", "podman pull")
    ahead = [ratio(times["labkit"], times[peer]).median for times in unpacks.values() for peer in peers]
    aims = [
        ("labkit run is no slower than podman run", against <= 1, f"ratio {against:.2f}"),
        ("unpacking is ahead of umoci and of podman", max(ahead) < 1, f"ratios {', '.join(f'{r:.2f}' for r in ahead)}"),
        ("import labkit takes under 50 ms", whole < 0.05, f"{ms(whole)} with the interpreter, {ms(alone)} of it ours"),
    ]
    print()
    for text, met, why in aims:
        print(f"aim: {text}: {'met' if met else 'MISSED'} ({why})")
    sys.stdout.flush()


def cpu() -> str:
    """The processor's name, where the kernel tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> list[str]:
    """The peers' names and versions."""
    found = []
    for name in ("podman", "runc", "umoci"):
        said = subprocess.run([name, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
        found.append(said.replace(" version", "").replace("umoci umoci", "umoci"))
    return found


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
