"""python -m bench.networks [--rounds N]: a container's network, made and removed, against CNI and netavark.

Owns: the race, in one run, in namespaces of its own.  Everybody gives the same to a network
namespace that waits: a veth pair to a bridge that is there already, an IPv4 address, a default
route, masquerade; in the second race one published TCP port too.  labkit does it in its own
process, as `labkit run` and the engine do; CNI and netavark are programs, as containerd and podman
start them.  The row "in a new process" starts a Python for each of labkit's two steps.

Bandwidth: iperf3 over labkit's bridge, over netavark's and over one without rules, taking turns.

Read: containernetworking/cni, SPEC.md; netavark(1); iperf3(1).
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
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.race import ratio, turns
from labkit.kernel import loopback, mounts, namespaces
from labkit.kernel.ledger import Ledger
from labkit.network import bridge, inside, ports

CNI = Path("/usr/lib/cni")
NETAVARK = Path("/usr/lib/podman/netavark")
TOOLS = {
    "nft": "nftables",
    "iptables": "iptables",
    "iperf3": "iperf3",
    str(CNI / "bridge"): "containernetworking-plugins",
    str(NETAVARK): "netavark",
}
PORT = "8080:80"
INSIDE = "--inside"
NEW_PROCESS = """
import sys
from labkit.kernel.ledger import Ledger
from labkit.network import bridge, inside
verb, identifier, pid = sys.argv[1:]
if verb == "detach":
    bridge.detach(identifier, Ledger(identifier))
else:
    endpoint = bridge.attach(identifier, int(pid), Ledger(identifier))
    with inside.visit(int(pid)):
        inside.configure(endpoint)
"""


class Contestant(NamedTuple):
    """Two steps; each takes a container's id and the pid of a process in its network namespace."""

    name: str
    add: Callable[[str, int], object]
    remove: Callable[[str, int], object]


def labkit(published: bool) -> Contestant:
    """As `labkit run` calls it."""

    def add(identifier: str, pid: int) -> None:
        ledger = Ledger(identifier)
        endpoint = bridge.attach(identifier, pid, ledger)
        with inside.visit(pid):
            inside.configure(endpoint)
        if published:
            ports.publish(ports.parse(PORT), endpoint, identifier, ledger)

    def remove(identifier: str, pid: int) -> None:
        ledger = Ledger(identifier)
        if published:
            ports.unpublish(identifier, ledger)
        bridge.detach(identifier, ledger)

    return Contestant("labkit", add, remove)


def new_process() -> Contestant:
    """The same, and the start of an interpreter each time."""

    def call(verb: str) -> Callable[[str, int], object]:
        return lambda identifier, pid: run([sys.executable, "-c", NEW_PROCESS, verb, identifier, str(pid)])

    return Contestant("labkit, in a new process", call("attach"), call("detach"))


def cni(folder: Path, published: bool) -> Contestant:
    """The reference plugins: bridge with host-local addresses, and portmap."""
    subnet = [[{"subnet": "10.44.0.0/16"}]]
    ipam = {"type": "host-local", "ranges": subnet, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(folder / "cni")}
    network = {"cniVersion": "1.0.0", "name": "bench"}
    first = {**network, "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
             "ipam": ipam}  # fmt: skip
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    second = {**network, "type": "portmap", "runtimeConfig": {"portMappings": [mapping]}, "snat": True}

    def plugin(verb: str, config: dict[str, object], identifier: str, pid: int) -> str:
        environment = {"CNI_COMMAND": verb, "CNI_CONTAINERID": identifier, "CNI_NETNS": f"/proc/{pid}/ns/net",
                       "CNI_IFNAME": "eth0", "CNI_PATH": str(CNI), "PATH": os.environ["PATH"]}  # fmt: skip
        return run([str(CNI / str(config["type"]))], json.dumps(config), environment)

    def add(identifier: str, pid: int) -> None:
        result = plugin("ADD", first, identifier, pid)
        if published:
            plugin("ADD", {**second, "prevResult": json.loads(result)}, identifier, pid)

    def remove(identifier: str, pid: int) -> None:
        if published:
            plugin("DEL", second, identifier, pid)
        plugin("DEL", first, identifier, pid)

    return Contestant("CNI bridge" + (" and portmap" if published else ""), add, remove)


def netavark(folder: Path, published: bool) -> Contestant:
    """podman's program; the address comes from podman, which is spared here."""
    (folder / "netavark").mkdir(exist_ok=True)
    network = {"name": "bench", "id": "b" * 64, "driver": "bridge", "network_interface": "podman1", "internal": False,
               "subnets": [{"subnet": "10.45.0.0/16", "gateway": "10.45.0.1"}], "ipv6_enabled": False,
               "dns_enabled": False, "ipam_options": {"driver": "host-local"}}  # fmt: skip
    mapping = {"host_ip": "", "host_port": 8080, "container_port": 80, "protocol": "tcp", "range": 1}
    numbers: dict[str, int] = {}

    def call(verb: str, identifier: str, pid: int) -> None:
        number = numbers.setdefault(identifier, 2 + len(numbers))
        place = {"interface_name": "eth0", "static_ips": [f"10.45.{number // 250}.{number % 250 + 2}"]}
        options = {
            "container_id": identifier,
            "container_name": identifier[:12],
            "port_mappings": [mapping] if published else [],
            "networks": {"bench": place},
            "network_info": {"bench": network},
        }
        words = [str(NETAVARK), "--config", str(folder / "netavark"), verb, f"/proc/{pid}/ns/net"]
        run(words, json.dumps(options))

    def step(verb: str) -> Callable[[str, int], object]:
        return lambda identifier, pid: call(verb, identifier, pid)

    return Contestant("netavark", step("setup"), step("teardown"))


FIRST = ["nice", "-n", "-20"]  # before whatever else the machine does: bandwidth is a matter of processor time
KEEPER = "f" * 64  # a container that stays during a race, so that the bridge is there already


def run(words: list[str], text: str = "", environment: dict[str, str] | None = None) -> str:
    """A program that must succeed; what it printed."""
    done = subprocess.run(words, input=text, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def waiting() -> subprocess.Popen[bytes]:
    """A process in a network namespace of its own."""
    child = subprocess.Popen(["unshare", "-n", "sleep", "600"])
    while os.readlink(f"/proc/{child.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.001)
    return child


Took = dict[str, tuple[list[float], list[float]]]


def race(contestants: list[Contestant], keepers: list[Contestant], rounds: int) -> Took:
    """{name: seconds of adding, seconds of removing}, a round after another; the first does not count."""
    took: Took = {one.name: ([], []) for one in contestants}
    held = [waiting() for _ in keepers]
    for one, child in zip(keepers, held, strict=True):
        one.add(KEEPER, child.pid)
    for number in range(-1, rounds):
        for place in turns(len(contestants), max(number, 0)):
            one = contestants[place]
            child = waiting()
            identifier = os.urandom(32).hex()
            for times, step in zip(took[one.name], (one.add, one.remove), strict=True):
                began = time.perf_counter()
                step(identifier, child.pid)
                if number >= 0:
                    times.append(time.perf_counter() - began)
            child.kill()
            child.wait()
    for one, child in zip(keepers, held, strict=True):
        one.remove(KEEPER, child.pid)
        child.kill()
        child.wait()
    return took


def bandwidth(folder: Path, rounds: int, seconds: int) -> dict[str, list[float]]:
    """{bridge: Gbit/s of each round}, from container to container.

    Each bridge is in a machine of its own: where br_netfilter is loaded, a frame on any bridge passes
    all rules of the machine, the peers' too.
    """
    wired = {one.name: wire(one.add) for one in (labkit(False), netavark(folder, False), BY_HAND)}
    for server, _, _ in wired.values():
        subprocess.Popen([*FIRST, "nsenter", "-t", str(server), "-n", "iperf3", "-s"], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    found: dict[str, list[float]] = {name: [] for name in wired}
    names = list(wired)
    for number in range(-1, rounds):
        for place in turns(len(names), max(number, 0)):
            _, client, address = wired[names[place]]
            words = [*FIRST, "nsenter", "-t", str(client), "-n", "iperf3", "-J", "-t", str(seconds), "-c", address]
            said = json.loads(run(words))
            if number >= 0:
                found[names[place]].append(said["end"]["sum_received"]["bits_per_second"] / 1e9)
    return found


def wire(add: Callable[[str, int], object]) -> tuple[int, int, str]:
    """Two containers on one bridge of a new machine: their pids, and the first one's address."""
    namespaces.leave(["net"])
    os.open("/proc/self/ns/net", os.O_RDONLY)  # held open, the machine stays when we go on to the next
    loopback.up()
    pids = [waiting().pid, waiting().pid]
    for number, pid in enumerate(pids):
        add(f"{number}a" * 32, pid)
    (link,) = json.loads(run(["nsenter", "-t", str(pids[0]), "-n", "ip", "-j", "-4", "addr", "show", "eth0"]))
    return pids[0], pids[1], link["addr_info"][0]["local"]


def by_hand(identifier: str, pid: int) -> None:
    """A bridge and nothing else: no rules, and so no connection tracking."""
    number = int(identifier[0]) + 1
    if number == 1:
        run(["ip", "link", "add", "plain0", "type", "bridge"])
        run(["ip", "link", "set", "plain0", "up"])
    run(["ip", "link", "add", f"plain{number}", "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
    run(["ip", "link", "set", f"plain{number}", "master", "plain0", "up"])
    for words in (f"addr add 10.46.0.{number}/24 dev eth0", "link set eth0 up", "link set lo up"):
        run(["nsenter", "-t", str(pid), "-n", "ip", *words.split()])


BY_HAND = Contestant("a bridge without rules", by_hand, by_hand)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.networks")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement of bandwidth")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    missing = {package for tool, package in TOOLS.items() if not shutil.which(tool)}
    if missing or os.geteuid() != 0:
        print(f"bench.networks needs root, and the packages {', '.join(sorted(set(TOOLS.values())))}", file=sys.stderr)
        return 125
    if not given.inside:
        words = ["unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private"]
        return subprocess.run([*words, sys.executable, "-m", "bench.networks", *sys.argv[1:], INSIDE]).returncode
    mounts.mount("none", "/run", "tmpfs", ["mode=755"])  # locks of iptables, folders of netavark
    mounts.mount("sysfs", "/sys", "sysfs")
    with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
        os.environ |= {"LABKIT_RUN": f"{folder}/run", "LABKIT_DATA": f"{folder}/data"}
        loopback.up()
        return report(Path(folder), given.rounds, given.seconds)


def report(folder: Path, rounds: int, seconds: int) -> int:
    """Race, and print the tables; the exit status says whether the aims are met."""
    print(f"machine: {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}; "
          f"{rounds} rounds, taking turns")  # fmt: skip
    print("ratio:   labkit's time in the peer's, median of the rounds (quartiles); below 1 labkit is faster\n")
    met = True
    for published in (False, True):
        contestants = [labkit(published), cni(folder, published), netavark(folder, published)]
        contestants += [] if published else [new_process()]
        keepers = [labkit(False), cni(folder, False), netavark(folder, False)]
        took = race(contestants, keepers, rounds)
        print("with one published port" if published else "without ports")
        print(f"  {'':<26}{'create':>10}{'remove':>10}{'both':>10}   ratio of both")
        whole = {name: [a + b for a, b in zip(*both, strict=True)] for name, both in took.items()}
        for name, (added, removed) in took.items():
            line = f"  {name:<26}" + "".join(
                f"{statistics.median(times) * 1e3:>7.1f} ms" for times in (added, removed, whole[name])
            )
            if "labkit" not in name:
                each = ratio(whole["labkit"], whole[name])
                line += f"   {each.median:.2f} ({each.low:.2f} to {each.high:.2f})"
                met &= each.median < 1
            print(line)
    print("\nbandwidth from container to container (iperf3)")
    found = bandwidth(folder, max(rounds // 2, 3), seconds)
    for name, rates in found.items():
        each = ratio(found["labkit"], rates)
        words = f"   ratio {each.median:.3f} ({each.low:.3f} to {each.high:.3f})" if name != "labkit" else ""
        print(f"  {name:<26}{statistics.median(rates):>7.1f} Gbit/s{words}")
    share = ratio(found["labkit"], found["netavark"]).median
    near = abs(share - 1) <= 0.05
    print(f"\naim: ahead of CNI and netavark: {'met' if met else 'MISSED'}")
    print(f"aim: bandwidth within 5 % of podman's bridge: {'met' if near else 'MISSED'} (ratio {share:.3f})")
    return 0 if met and near else 1


if __name__ == "__main__":
    sys.exit(main())
