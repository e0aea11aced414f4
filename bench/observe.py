"""python -m bench.observe [--rounds N]: how long a snapshot takes, and a difference of two.

Owns: the machine that is read: fifty processes, each in mount, network and pid namespaces of its
own, with twenty mounts each beside those that were copied, and a cable to one bridge.  All of it
lies in namespaces of its own, and goes with the process that made it.

Read: namespaces(7), veth(4).
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel import mounts, rtnetlink, syscalls
from labkit.kernel.netlink import Netlink
from labkit.observe import difference, snapshot

TREE = Path(__file__).resolve().parents[1]
GROUND = Path("/mnt")  # hier(7): it is everywhere
NAMESPACES, MOUNTS = 50, 20  # so many of each kind, and mounts in each
AIMS = {"snapshot of everything": 100.0, "the same, asked of a visitor that stays": 100.0, "difference of two": 20.0,
        "snapshot of one container": 6.0}  # fmt: skip  # milliseconds; the last: 5 a second in 3 % of a core
UNSHARE = ["unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private", "--"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.observe", description="snapshots of a busy machine, timed")
    parser.add_argument("--rounds", type=int, default=21, help="measurements of each, 21 unless told")
    parser.add_argument("--profile", action="store_true", help="where the time of a snapshot goes")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("python -m bench.observe: it makes namespaces, and these need root", file=sys.stderr)
        return 125
    if given.inside:
        return inside(given.rounds, given.profile)
    return subprocess.run(within(*sys.argv[1:])).returncode


def within(*arguments: str) -> list[str]:
    """The command line of this program as process 1 of a machine of its own."""
    return [*UNSHARE, sys.executable, "-m", "bench.observe", "--inside", *arguments]


def inside(rounds: int, profile: bool) -> int:
    """As process 1: make the machine, measure, print; what was made goes with this process."""
    pids = populate()
    took: dict[str, list[float]] = {name: [] for name in AIMS}
    with snapshot.Visitor() as visitor:
        before = snapshot.take(visitor=visitor)
        after = change(pids, visitor)
        for _ in range(rounds):
            clock(took["snapshot of everything"], snapshot.take)
            clock(took["the same, asked of a visitor that stays"], lambda: snapshot.take(visitor=visitor))
            clock(took["difference of two"], lambda: difference.compare(before, after))
            clock(took["snapshot of one container"], lambda: snapshot.take(snapshot.Tree(pids[0]), visitor=visitor))
    links = sum(len(network.links) for network in before.networks.values())
    listed = sum(map(len, before.mounts.values()))
    print(f"machine: {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"read:    {len(before.processes)} processes, {len(before.namespaces)} namespaces, "
          f"{listed} mounts in {len(before.mounts)} tables, {links} links")  # fmt: skip
    print(f"changed: {difference.words(difference.compare(before, after))}\n")
    for name, times in took.items():
        print(f"{name:<42} median {statistics.median(times):6.1f} ms, least {min(times):6.1f} ms")
    medians = {name: statistics.median(times) for name, times in took.items()}
    missed = [name for name, middle in medians.items() if middle > AIMS[name]]
    print()
    for name, most in AIMS.items():
        print(f"aim: {name} in under {most:.0f} ms: {'MISSED' if name in missed else 'met'} ({medians[name]:.1f} ms)")
    if profile:
        with cProfile.Profile() as watched:
            snapshot.take()
        watched.print_stats("cumulative")
    return 1 if missed else 0


def clock(times: list[float], work: Callable[[], object]) -> None:
    """Add the milliseconds that `work` takes."""
    start = time.perf_counter()
    work()
    times.append((time.perf_counter() - start) * 1000)


def populate(count: int = NAMESPACES, mounts_each: int = MOUNTS) -> list[int]:
    """Make the processes with their namespaces, mounts and cables; their pids, when all are ready."""
    mounts.mount("ground", GROUND, "tmpfs")  # it goes with this mount namespace, and what is in it
    ready, said = os.pipe()
    pids = [member(said, mounts_each) for _ in range(count)]
    for _ in pids:
        assert os.read(ready, 1) == b"r", "a process ended before it was ready"
    with Netlink() as netlink:
        rtnetlink.create_bridge(netlink, "br0")
        bridge = socket.if_nametoindex("br0")
        rtnetlink.set_up(netlink, bridge)
        rtnetlink.add_address(netlink, bridge, "172.30.0.1", 24)
        for number, pid in enumerate(pids):
            rtnetlink.create_veth(netlink, f"port{number}", "eth0", pid, bytes([2, 0, 0, 0, 0, number]), bridge)
    return pids


def member(said: int, count: int) -> int:
    """A process in mount, network and pid namespaces of its own, with `count` mounts of its own."""
    pid = syscalls.clone3(C.CLONE_NEWNS | C.CLONE_NEWNET | C.CLONE_NEWPID)
    if pid:
        return pid
    try:
        mounts.mount("proc", "/proc", "proc")
        for number in range(count - 1):
            place = GROUND / f"place{number}"
            place.mkdir(exist_ok=True)
            mounts.mount("bench", place, "tmpfs", ["size=4k"])
        os.write(said, b"r")
        while True:
            signal.pause()
    finally:
        os._exit(1)


def change(pids: list[int], visitor: snapshot.Visitor) -> snapshot.Snapshot:
    """End one of the processes and start another; the snapshot after that."""
    os.kill(pids[-1], signal.SIGKILL)
    os.waitpid(pids.pop(), 0)
    ready, said = os.pipe()
    pids.append(member(said, MOUNTS))
    assert os.read(ready, 1) == b"r", "the process ended before it was ready"
    return snapshot.take(visitor=visitor)


if __name__ == "__main__":
    sys.exit(main())
