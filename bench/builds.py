"""python -m bench.builds [--rounds N]: a Dockerfile to an image, against podman build and, where it runs, docker build.

Owns: two races, in one run, in a machine of their own: a build of which nothing changed since the last one, and
all ten layers anew (five RUN, five COPY of a hundred files), without a network.  Everybody starts from the
same base image, the same context, and disks of the same kind; images of former rounds go before each round.

Read: podman-build(1); docker-build(1); labkit.image.build.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import images, machine
from bench.race import SPARED, Contestant, Times, race, ratio
from labkit.errors import LabError
from labkit.image import kit
from labkit.image.store import Image, Store

UNFIT = 3  # exit status: not everybody works in this view of the cgroups
# Without CAP_SYS_RESOURCE, as in many sandboxes, podman could not raise its own defaults.
PODMAN_BUILD = ["build", "--quiet", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
FILES = 100
AIM = 0.150  # seconds of a build of which nothing changed
SLOWER = 1.2  # times the faster peer's time, for ten layers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.builds", description="builds, as ratios")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--ground", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--view", choices=machine.VIEWS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.view:
            return inside(given.ground, given.view, given.rounds)
        return outside(given.rounds)
    except LabError as error:
        print(f"bench.builds: {error}", file=sys.stderr)
        return error.status


def outside(rounds: int) -> int:
    """Make the ground, and race in the first view in which everybody builds."""
    if os.geteuid() != 0:
        raise LabError("builds start containers, and these need root", next="sudo make bench")
    with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
        ground = Path(folder)
        base_image(ground)
        context(ground / "context")
        for view in machine.VIEWS:
            status = machine.within(view, "bench.builds", "--ground", folder, "--rounds", str(rounds))
            if status != UNFIT:
                return status
    raise LabError("there is no view of the cgroups here in which labkit and podman both build")


def base_image(ground: Path) -> None:
    """labkit's store with busybox, of the lab's registry where there is one; the peers read it as it is."""
    try:
        Store(ground / "data/images").pull(images.BUSYBOX)
    except LabError:
        kit.build(ground / "images", ["busybox"])
        images.rename(ground / "images/busybox", images.BUSYBOX)
        shutil.copytree(ground / "images/busybox", ground / "data/images", dirs_exist_ok=True)


def context(folder: Path) -> None:
    """Ten instructions that make a layer each, and a hundred files for each COPY."""
    folder.mkdir()
    lines = [f"FROM {images.BUSYBOX}"]
    for number in range(5):
        (folder / f"d{number}").mkdir()
        for file in range(FILES):
            (folder / f"d{number}" / f"f{file}").write_text(f"{number} {file}\n" * 50)
        lines += [f"COPY d{number} /d{number}", f"RUN cat /d{number}/* > /all{number}"]
    (folder / "Dockerfile").write_text("\n".join([*lines, ""]))


def inside(ground: Path, view: str, rounds: int) -> int:
    """As process 1 of the machine: race, and print the table."""
    machine.arrange(view)
    # Measured as people have it: compiled once, then read from __pycache__.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"LABKIT_RUN": str(ground / "run"), "LABKIT_DATA": str(ground / "data")}
    with docker(ground) as client:
        try:
            makers = {"labkit build": labkit(ground), "podman build": podman(ground)}
            if client and _works("docker build", client, environment):
                makers["docker build"] = client
            race([Contestant(name, words) for name, words in makers.items()], 1, environment)
        except LabError as error:
            print(f"not here: {error}", file=sys.stderr)
            return UNFIT
        anew = [Contestant(name, [*words, "--no-cache"], _clear(name, ground)) for name, words in makers.items()]
        races = {
            "nothing changed": race([Contestant(name, words) for name, words in makers.items()], rounds, environment),
            "ten layers": race(anew, rounds, environment),
        }
    report(races, view, rounds, "docker build" in makers)
    return 0


def _works(name: str, words: list[str], environment: dict[str, str]) -> bool:
    """One build that does not count; without it the others race all the same, and this is said."""
    try:
        race([Contestant(name, words)], 0, environment)
    except LabError as error:
        print(f"{name} does not race: {error}", file=sys.stderr)
        return False
    return True


def labkit(ground: Path) -> list[str]:
    """labkit's command line; options may follow it."""
    return [sys.executable, "-m", "labkit", "build", "--quiet", "--network", "none", "--tag", "bench",
            str(ground / "context")]  # fmt: skip


def podman_words(ground: Path) -> list[str]:
    """podman with a storage of its own."""
    return ["podman", "--runtime", "runc", "--root", f"{ground}/podman", "--runroot", f"{ground}/podman-run",
            "--tmpdir", f"{ground}/podman-tmp", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs",
            "--events-backend", "file", "--log-level", "error"]  # fmt: skip


def podman(ground: Path) -> list[str]:
    """podman's; the base image is brought first. (--layers is its cache.)"""
    words = podman_words(ground)
    layout = f"oci:{ground}/data/images:{images.BUSYBOX}"
    done = subprocess.run([*words, "pull", "--quiet", layout], capture_output=True, text=True)
    if done.returncode:
        raise LabError("podman does not pull the base image", why=done.stderr.strip()[-500:])
    listed = subprocess.run([*words, "images", "--quiet"], check=True, capture_output=True, text=True).stdout.split()
    subprocess.run([*words, "tag", listed[0], images.BUSYBOX], check=True, capture_output=True)
    return [*words, *PODMAN_BUILD, "--layers", "--tag", "localhost/bench", str(ground / "context")]


@contextmanager
def docker(ground: Path) -> Iterator[list[str]]:
    """docker build's command line with a daemon of its own; empty where there is no dockerd."""
    if shutil.which("dockerd") is None or shutil.which("containerd") is None:
        yield []
        return
    folder = ground / "docker"
    folder.mkdir()
    (folder / "containerd.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    with (folder / "log").open("w") as log:
        words = [
            "--config",
            "containerd.toml",
            "--root",
            f"{folder}/c-root",
            "--state",
            f"{folder}/c-state",
            "--address",
            f"{folder}/c",
        ]
        containerd = subprocess.Popen(["containerd", *words], cwd=folder, stdout=log, stderr=log)
        SPARED.add(containerd.pid)
        _await((folder / "c").exists, containerd, folder / "log")
        words = ["--data-root", f"{folder}/root", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid",
                 "--host", f"unix://{folder}/socket", "--containerd", f"{folder}/c", "--bridge", "none",
                 "--iptables=false", "--ip-forward=false"]  # fmt: skip
        dockerd = subprocess.Popen(["dockerd", *words], stdout=log, stderr=log)
        SPARED.add(dockerd.pid)
        client = ["docker", "--host", f"unix://{folder}/socket"]
        asked = [*client, "version"]
        _await(lambda: not subprocess.run(asked, capture_output=True).returncode, dockerd, folder / "log")
        try:
            _archive(Store(ground / "data/images").get(images.BUSYBOX), folder / "base.tar")
            subprocess.run([*client, "load", "--input", f"{folder}/base.tar"], check=True, capture_output=True)
            yield [*client, "build", "--quiet", "--network", "none", "--tag", "bench", str(ground / "context")]
        finally:
            for one in (dockerd, containerd):
                one.terminate()
                one.wait(60)


def _archive(image: Image, output: Path) -> None:
    """The image as `docker load` takes it, the blobs as they are."""
    config, layers = image.manifest.config.digest, [layer.digest for layer in image.manifest.layers]
    names = {digest: digest.removeprefix("sha256:") for digest in (config, *layers)}
    document = [{"Config": names[config], "RepoTags": [image.name], "Layers": [names[layer] for layer in layers]}]
    data = json.dumps(document).encode()
    header = tarfile.TarInfo("manifest.json")
    header.size = len(data)
    with tarfile.open(output, "w") as tar:
        for digest, name in names.items():
            tar.add(image.store.path(digest), name)
        tar.addfile(header, io.BytesIO(data))


def _await(ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 200
    while not ready():
        if child.poll() is not None or time.monotonic() > deadline:
            raise LabError("a daemon does not start", why=log.read_text()[-1500:])
        time.sleep(0.1)


def _clear(name: str, ground: Path) -> Callable[[], object]:
    """What goes before a round: podman keeps each round's layers, and would become slower."""
    words = [*podman_words(ground), "image", "prune", "--force"] if name == "podman build" else ["true"]
    return lambda: subprocess.run(words, check=True, capture_output=True)


def report(races: dict[str, Times], view: str, rounds: int, with_docker: bool) -> None:
    """The table, and the aims."""
    print(f"\nbuilds: {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f},")
    print(f"        {machine.VIEWS[view]}; rounds {rounds}, taking turns, one not counted")
    if not with_docker:
        print("        docker build: not measured, no dockerd works here (in the lab's machine one does)")
    line = "{:<22}{:>12}   {:<18}{:>12}   {}"
    print(line.format("what", "labkit", "peer", "peer's", "ratio"))
    for what, times in races.items():
        for peer in times:
            if peer != "labkit build":
                each = ratio(times["labkit build"], times[peer])
                mine, theirs = (f"{statistics.median(times[name]) * 1e3:.0f} ms" for name in ("labkit build", peer))
                print(line.format(what, mine, peer, theirs, f"{each.median:.2f} ({each.low:.2f} to {each.high:.2f})"))
    unchanged = statistics.median(races["nothing changed"]["labkit build"])
    ten = {peer: ratio(races["ten layers"]["labkit build"], times).median for peer, times in races["ten layers"].items()
           if peer != "labkit build"}  # fmt: skip
    worst = max(ten.values())
    print(f"\naim: a build of which nothing changed takes under {AIM * 1e3:.0f} ms:"
          f" {'met' if unchanged < AIM else 'MISSED'} ({unchanged * 1e3:.0f} ms)")  # fmt: skip
    print(f"aim: ten layers within {SLOWER} of the faster peer: {'met' if worst <= SLOWER else 'MISSED'}"
          f" (ratio {worst:.2f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
