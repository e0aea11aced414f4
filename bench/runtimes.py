"""`python -m bench.runtimes`: labkit-runtime against runc and, where it starts, crun, on the same bundle.

A whole `run` of /bin/true; a warm start from Python; twenty at once; the memory of the process that waits to be
started; and `podman run` with each runtime.  All of them in turns, so that nobody is always first.  In a machine
with cgroup v2 alone: a hybrid one makes runc slower than it is.
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
from pathlib import Path

from bench import images, machine
from bench.race import SPARED, Contestant, Times, race, ratio, rotated
from labkit.errors import LabError
from labkit.image import crane
from labkit.runtime import container, program
from labkit.runtime.document import template
from labkit.runtime.warm import Helper

ROUNDS = 41
AT_ONCE = 20
AIM = 0.8  # of runc's time
WARM_AIM = 0.5  # of crun's


def main() -> int:
    """Race, and print a line a contestant and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench.runtimes", description="labkit-runtime, runc and crun")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    for option, what in (("--at-once-rounds", f"{AT_ONCE} at once"), ("--engine-rounds", "podman run")):
        parser.add_argument(option, type=int, help=f"of {what}; as many as the others when not given")
    parser.add_argument("--view", help=argparse.SUPPRESS)
    parser.add_argument("--ground", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.view:
            machine.arrange("v2")
            return run(given.ground, given.rounds, given.at_once_rounds or given.rounds,
                       given.engine_rounds or given.rounds)  # fmt: skip
        container.require_root()
        with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
            ground = Path(folder)
            bundle(ground)
            words = ["--ground", folder]
            for name in ("rounds", "at_once_rounds", "engine_rounds"):
                words += [f"--{name.replace('_', '-')}", str(getattr(given, name) or given.rounds)]
            return machine.within("v2", "bench.runtimes", *words)
    except LabError as error:
        print(f"bench.runtimes: {error}", file=sys.stderr)
        return error.status


def bundle(ground: Path) -> None:
    """The kit's busybox, bundles with `spec`'s config.json and /bin/true, and the program that engines are given.

    A bundle for each that runs at the same time, since each names a cgroup of its own: without a name, crun takes
    the place of its caller's, which is the race's.
    """
    layout = ground / "images/busybox"
    try:
        crane.pull(images.BUSYBOX, layout)  # the lab's own registry, where this is the lab
        images.rename(layout, images.BUSYBOX)
    except LabError:
        images.build(ground / "images", small=True)
    source = f"{layout}:{images.BUSYBOX}"
    done = subprocess.run(["umoci", "raw", "unpack", "--image", source, f"{ground}/rootfs"], capture_output=True,
                          text=True)  # fmt: skip
    if done.returncode:
        raise LabError("cannot unpack busybox", why=done.stderr.strip())
    config = template.spec()
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["ociVersion"] = "1.0.2"  # the peers know no later one
    config["root"]["path"] = f"{ground}/rootfs"
    for number in range(AT_ONCE):
        place = ground / f"bundle{number}"
        place.mkdir()
        config["linux"]["cgroupsPath"] = f"/raced{number}"
        (place / "config.json").write_text(json.dumps(config))
    program.write(f"{ground}/labkit-runtime")


def run(ground: Path, rounds: int, at_once_rounds: int, engine_rounds: int) -> int:
    """As process 1 of the machine."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    os.chdir(ground / "bundle0")
    commands = starting(ground, environment)
    contestants = [Contestant(name, [*words, "run", "bench"]) for name, words in commands.items()]
    # What any program in Python costs here, in the same minutes: the machine's pace is in both.
    contestants.append(Contestant("python pass", [program.interpreter(), "-IS", "-c", "pass"]))
    times = race(contestants, rounds, environment)
    show("run /bin/true", times, "ms", 1000)
    warm = warm_starts(commands, rounds, environment)
    show("a warm start from Python", warm, "ms", 1000)
    show(f"{AT_ONCE} at once", at_once(commands, at_once_rounds, environment), "ms", 1000)
    for what, each in waiting(commands, rounds, environment).items():
        show(f"the process that waits, {what}", each, "MB", 1e-6)
    show("podman run", race(engines(ground, commands), engine_rounds, environment), "ms", 1000)
    found = ratio(times["labkit-runtime"], times["runc"]).median
    print(f"\naim: a cold run in at most {AIM} of runc's time: {found:.2f}, {'met' if found <= AIM else 'not met'}; "
          f"at most runc's: {'met' if found <= 1 else 'not met'}", flush=True)  # fmt: skip
    if "crun" in warm:
        half = ratio(warm["labkit-runtime"], warm["crun"]).median
        print(f"aim: a warm start in at most {WARM_AIM} of crun's time: {half:.2f}, "
              f"{'met' if half <= WARM_AIM else 'not met'}", flush=True)  # fmt: skip
    return 0


def warm_starts(commands: dict[str, list[str]], rounds: int, environment: dict[str, str]) -> Times:
    """Seconds for a `run` asked for by this process: by the helper that is there, and by a new program of each."""

    def start(name: str) -> float:
        began = time.perf_counter()
        words = commands[name]
        if name == "labkit-runtime":
            status = helper(*words[1:], "run", "warm")
        else:
            status = subprocess.run([*words, "run", "warm"], env=environment, stdin=subprocess.DEVNULL).returncode
        if status:
            raise LabError(f"{name} failed with {status}")
        return time.perf_counter() - began

    with Helper() as helper:
        SPARED.add(helper.pid)
        return rotated(commands, rounds, start)


def starting(ground: Path, environment: dict[str, str]) -> dict[str, list[str]]:
    """The runtimes that run here, by name; who does not is said."""
    found = {"labkit-runtime": [f"{ground}/labkit-runtime", "--root", f"{ground}/state/labkit"]}
    for name in ("runc", "crun"):
        if path := shutil.which(name):
            found[name] = [path, "--root", f"{ground}/state/{name}"]
    for name, words in list(found.items()):
        done = subprocess.run([*words, "run", "probe"], env=environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)  # fmt: skip
        if done.returncode:
            print(f"{name} does not run here: {(done.stderr or done.stdout).strip()[:200]}")
            del found[name]
    if not {"labkit-runtime", "runc"} <= found.keys():
        raise LabError("labkit-runtime and runc must both run here to be raced")
    return found


def at_once(commands: dict[str, list[str]], rounds: int, environment: dict[str, str]) -> Times:
    """Seconds until the last of twenty has ended."""

    def start(name: str) -> float:
        began = time.perf_counter()
        many = []
        for number in range(AT_ONCE):
            one = [*commands[name], "run", "--bundle", f"../bundle{number}", f"b{number}"]
            many.append(subprocess.Popen(one, env=environment, stdin=subprocess.DEVNULL))
        if failed := [one.returncode for one in many if one.wait()]:
            raise LabError(f"{name}: {len(failed)} of {AT_ONCE} failed")
        return time.perf_counter() - began

    return rotated(commands, rounds, start)


def waiting(commands: dict[str, list[str]], rounds: int, environment: dict[str, str]) -> dict[str, Times]:
    """{kind of memory: bytes of the waiting process}.

    What it has alone (Private), and all that it has in use (Rss).  Pss would be between them, and less the more others
    run the same program: it halves the text of an interpreter that the race itself runs.
    """
    found: dict[str, Times] = {kind: {name: [] for name in commands} for kind in ("Private", "Rss")}

    def look(name: str) -> float:
        for kind, size in memory(commands[name], environment).items():
            found[kind][name].append(size)
        return 0.0

    rotated(commands, rounds, look)
    return {kind: {name: sizes[1:] for name, sizes in each.items()} for kind, each in found.items()}


def memory(words: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Bytes of a process that waits to be started, by kind."""
    subprocess.run([*words, "create", "waits"], env=environment, stdin=subprocess.DEVNULL, check=True)
    state = subprocess.run([*words, "state", "waits"], env=environment, capture_output=True, text=True, check=True)
    text = Path(f"/proc/{json.loads(state.stdout)['pid']}/smaps_rollup").read_text()
    subprocess.run([*words, "delete", "--force", "waits"], env=environment, check=True)
    return kinds(text)


def kinds(text: str) -> dict[str, float]:
    """Bytes by kind from the text of smaps_rollup."""
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"Private": private * 1024.0, "Rss": kilobytes["Rss"] * 1024.0}


def engines(ground: Path, commands: dict[str, list[str]]) -> list[Contestant]:
    """podman with each of them."""
    podman = ["podman", "--root", f"{ground}/podman", "--runroot", f"{ground}/podman-run", "--tmpdir",
              f"{ground}/podman-tmp", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--log-level",
              "error"]  # fmt: skip
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--pids-limit", "0"]
    return [
        Contestant(name, [*podman, "--runtime", words[0], "run", "--rm", "--network", "none", *limits, "--rootfs",
                          f"{ground}/rootfs", "/bin/true"])
        for name, words in commands.items()
    ]  # fmt: skip


def show(what: str, times: Times, unit: str, factor: float) -> None:
    """A line a contestant: the median, the least, and labkit's part of it, round by round."""
    print(f"\n{what}")
    for name, each in times.items():
        part = ratio(times["labkit-runtime"], each)
        print(f"  {name:<16}{statistics.median(each) * factor:8.1f} {unit}  least {min(each) * factor:8.1f}"
              f"  labkit-runtime/it {part.median:5.2f} ({part.low:.2f} to {part.high:.2f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
