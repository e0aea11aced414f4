"""Reading floor: what the kernel holds for one process, and how much of it is its own.

Owns: the reading of namespaces, cgroup files, layers, cables and ports, all from
outside: /proc/PID and cgroupfs tell it without entering anything.

Read: proc(5), namespaces(7), cgroups(7), veth(4).
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import NamedTuple

from labkit.kernel import namespaces, rtnetlink
from labkit.kernel.mounts import find
from labkit.kernel.netlink import Netlink
from labkit.observe import mountinfo


def namespace_table(pids: dict[str, int | str]) -> dict[str, dict[str, int]]:
    """{column: {kind: inode}} for several processes; the same inode means the same namespace."""
    return {name: {kind: namespaces.inode(kind, pid) for kind in namespaces.KINDS} for name, pid in pids.items()}


def status(pid: int | str) -> dict[str, str]:
    """The fields of /proc/PID/status. Raises FileNotFoundError when the process is gone."""
    return parse_status(Path(f"/proc/{pid}/status").read_text())


def parse_status(text: str) -> dict[str, str]:
    """{field: value}, white space between values made one space."""
    pairs = (line.partition(":")[::2] for line in text.splitlines())
    return {name: " ".join(value.split()) for name, value in pairs}


def pids_inside(pid: int) -> list[int]:
    """The process's number in each pid namespace that it is in, ours first (NSpid, Linux 4.1)."""
    return [int(word) for word in status(pid)["NSpid"].split()]


def cgroup(pid: int | str) -> Path:
    """The cgroup v2 folder of a process. Raises FileNotFoundError where version 2 is not mounted."""
    top = find("cgroup2")
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    place = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if top is None or place is None:
        raise FileNotFoundError("this machine has no cgroup v2 tree")
    return top / place.lstrip("/")


def cgroup_files(group: Path, names: list[str]) -> dict[str, str]:
    """{file: text} of those files that the cgroup has."""
    return {name: (group / name).read_text().strip() for name in names if (group / name).exists()}


def processes(group: Path) -> list[tuple[int, str, int]]:
    """(pid here, name, pid inside) of everything in the cgroup, oldest first."""
    found = []
    for word in (group / "cgroup.procs").read_text().split():
        try:
            numbers = pids_inside(int(word))
            found.append((int(word), status(int(word))["Name"], numbers[-1]))
        except FileNotFoundError:
            continue  # it ended meanwhile
    return sorted(found)


class Layer(NamedTuple):
    """A folder of a root file system."""

    folder: str
    size: int  # bytes in regular files
    files: int
    writable: bool


def root_layers(pid: int | str) -> list[Layer]:
    """The layers of the process's root, the bottom first. Raises ValueError when the root is no overlay."""
    roots = [mount for mount in mountinfo.read(pid) if mount.place == "/"]
    stack = mountinfo.layers(roots[-1])
    return [_measure(folder, False) for folder in stack.lower] + ([_measure(stack.upper, True)] if stack.upper else [])


def _measure(folder: str, writable: bool) -> Layer:
    size = count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            info = os.lstat(os.path.join(place, name))
            count += 1
            size += info.st_size if not os.path.islink(os.path.join(place, name)) else 0
    return Layer(folder, size, count, writable)


class Cable(NamedTuple):
    """A network device of a process, and the device here that its other end is."""

    inside: str
    address: str  # IPv4, or empty
    outside: str  # name of the other end in our namespace, or empty
    bridge: str  # the bridge that the other end is plugged into, or empty


def cables(pid: int) -> list[Cable]:
    """The network devices of the process other than lo."""
    with Netlink() as netlink:
        ours = {link.ifindex: link for link in rtnetlink.links(netlink)}
    # Its own sysfs shows its own network namespace (sysfs is mounted for one).
    found = []
    for device in sorted(Path(f"/proc/{pid}/root/sys/class/net").iterdir()):
        if device.name == "lo":
            continue
        other = ours.get(int((device / "iflink").read_text()))
        master = ours.get(other.master) if other else None
        found.append(Cable(device.name, _address(pid), other.name if other else "", master.name if master else ""))
    return found


def _address(pid: int) -> str:
    return next(iter(local_addresses(Path(f"/proc/{pid}/net/fib_trie").read_text())), "")


def local_addresses(text: str) -> list[str]:
    """The host's own IPv4 addresses in the text of fib_trie, without those of the loopback."""
    lines = text.splitlines()
    found = [
        line.split()[-1]
        for line, below in itertools.pairwise(lines)
        if line.strip().startswith("|--") and below.strip() == "/32 host LOCAL"
    ]
    return sorted({address for address in found if not address.startswith("127.")})


def listening(pid: int) -> list[int]:
    """The TCP ports on which somebody listens in the network namespace of the process."""
    return listening_ports(*(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")))


def listening_ports(*tables: str) -> list[int]:
    """The ports in state LISTEN (0A, include/net/tcp_states.h) in texts of /proc/net/tcp and tcp6."""
    rows = [line.split() for text in tables for line in text.splitlines()[1:]]
    return sorted({int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"})


def wait_for_port(pid: int, port: int, seconds: float = 60.0) -> None:
    """Return when somebody listens on `port` there. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while port not in listening(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on port {port} of pid {pid} after {seconds:g} s")
        time.sleep(0.05)
