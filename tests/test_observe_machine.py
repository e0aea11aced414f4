"""A snapshot of a machine with fifty namespaces and a thousand mounts, beside what lsns, findmnt, ip and psutil say.

The machine is the benchmark's (bench/observe.py): process 1 of namespaces of its own, which `gather`
below runs in.  It asks labkit and the other programs, and ends, and all that it made with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import observe as ground
from labkit.observe import difference_mounts, snapshot
from labkit.observe.model import Snapshot

TREE = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]


def gather(file: str) -> None:
    """In the machine: make what is to be seen, and write down what labkit sees and what the others say."""
    import psutil

    from labkit.kernel import mounts

    mounts.mount("run", "/run", "tmpfs")
    said = {"count": ground.NAMESPACES}
    pids = ground.populate()
    for words in (["ip", "netns", "add", "blue"], ["ip", "-n", "blue", "link", "add", "dummy0", "type", "bridge"],
                  ["ip", "-n", "blue", "address", "add", "192.0.2.9/24", "dev", "dummy0"],
                  ["ip", "route", "add", "192.0.2.0/25", "via", "172.30.0.9"],
                  ["ip", "route", "add", "blackhole", "198.51.100.0/24"],
                  ["ip", "-6", "address", "add", "2001:db8::1/64", "dev", "br0", "nodad"],
                  ["nsenter", "-t", str(pids[0]), "-n", "nft", "add", "table", "ip", "mine"]):  # fmt: skip
        subprocess.run(words, check=True)
    holder = subprocess.Popen(["sleep", "1000"], stdin=open("/run/netns/blue"))  # noqa: SIM115
    nested = subprocess.Popen(["unshare", "-U", "-r", "-p", "-f", "-m", "sleep", "1000"])
    while len(psutil.Process(nested.pid).children()) == 0:
        pass
    taken = snapshot.take(rules=True, descriptors=True)
    said["snapshot"] = snapshot.to_json(taken)
    said["holder"] = holder.pid
    said["lsns"] = output("lsns", "--json", "-o", "NS,TYPE,NPROCS,PID,PNS,ONS")["namespaces"]
    said["psutil"] = [of_psutil(psutil.Process(pid)) for pid in taken.processes]
    columns = "ID,PARENT,MAJ:MIN,FSROOT,TARGET,FSTYPE,SOURCE,PROPAGATION,VFS-OPTIONS"
    said["findmnt"] = {pid: output("findmnt", "--json", "--list", "--task", str(pid), "-o", columns)["filesystems"]
                       for pid in (1, *pids)}  # fmt: skip
    said["ip"] = {pid: [output("nsenter", "-t", str(pid), "-n", "ip", *words) for words in ASKED]
                  for pid in (1, *pids[:5])}  # fmt: skip
    said["blue"] = [output("ip", "-n", "blue", *words) for words in ASKED]
    Path(file).write_text(json.dumps(said))


ASKED = (["-j", "-d", "address"], ["-j", "route"], ["-j", "-6", "route"])


def output(*words: str) -> Any:
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout or "[]")


def of_psutil(process: Any) -> list[Any]:
    return [process.pid, process.ppid(), process.name(), process.cmdline(), process.uids().effective,
            process.gids().effective, process.num_threads()]  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `gather` wrote down."""
    file = tmp_path_factory.mktemp("observe") / "said.json"
    program = f"import sys; sys.path[:0] = {[str(TREE), str(TREE / 'tests')]!r}; import test_observe_machine as t; "
    words = [*ground.UNSHARE, sys.executable, "-c", f"{program}t.gather({str(file)!r})"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.fixture(scope="module")
def taken(said: dict[str, Any]) -> Snapshot:
    """The snapshot among them."""
    return snapshot.from_json(said["snapshot"])


def test_the_machine_is_as_large_as_is_said(said: dict[str, Any], taken: Snapshot) -> None:
    """Fifty namespaces of three kinds and more than a thousand mounts were read."""
    for kind in ("mnt", "pid", "net"):
        assert sum(one.kind == kind for one in taken.namespaces.values()) > said["count"]
    assert sum(map(len, taken.mounts.values())) > 1000


def test_namespaces_are_lsns_s(said: dict[str, Any], taken: Snapshot) -> None:
    """lsns and the snapshot see the same namespaces, with the same number of members, owner and parent."""
    # lsns itself is in those of process 1.
    own = {(kind, inode) for kind, inode in taken.processes[1].namespaces.items()}
    listed = {(one["type"], int(one["ns"])): one for one in said["lsns"]}
    seen = {key: one for key, one in taken.namespaces.items() if one.members}
    assert listed.keys() == seen.keys()
    for key, one in seen.items():
        if key not in own:
            assert len(one.members) == int(listed[key]["nprocs"]), key
        assert one.members[0] == int(listed[key]["pid"]), key
        assert (one.owner, one.parent) == (int(listed[key]["ons"] or 0), parent(key[0], listed[key])), key


def parent(kind: str, listed: dict[str, Any]) -> int:
    return int(listed["pns"] or 0) if kind in ("pid", "user") else 0


def test_a_named_network_namespace_is_held_by_its_file_and_a_descriptor(said: dict[str, Any], taken: Snapshot) -> None:
    """Without a member it lives by the file of `ip netns` and by who has that open, and is read all the same."""
    (blue,) = [one for one in taken.namespaces.values() if one.kind == "net" and not one.members]
    # Each of the fifty copied the mount table before the name was there; the later process of its own has a copy.
    assert "/run/netns/blue" in blue.files
    assert f"/proc/{said['holder']}/fd/0" in blue.files
    assert all(path.startswith("/proc/") for path in blue.files if path != "/run/netns/blue")
    assert_as_ip_says(said["blue"], taken, blue.inode)


def test_the_initial_user_namespace_has_no_owner_and_the_nested_one_has(taken: Snapshot) -> None:
    """A user namespace made in the machine names its parent, and owns the namespaces made with it."""
    users = [one for one in taken.namespaces.values() if one.kind == "user"]
    ours = taken.processes[1].namespaces["user"]
    (nested,) = [one for one in users if one.inode != ours]
    assert (nested.parent, nested.owner) == (ours, ours)
    owned = {one.kind for one in taken.namespaces.values() if one.owner == nested.inode}
    assert owned == {"pid", "mnt"}


def test_processes_are_psutils(said: dict[str, Any], taken: Snapshot) -> None:
    """Parent, name, command, user, group and threads are as psutil reads them."""
    for pid, ppid, name, command, uid, gid, threads in said["psutil"]:
        mine = taken.processes[pid]
        seen = (mine.parent, mine.name, list(mine.command), mine.uid, mine.gid, mine.threads)
        # psutil completes a name that the kernel cut at 15 bytes.
        assert seen == (ppid, name[:15], command, uid, gid, threads)
    assert len(said["psutil"]) == len(taken.processes) > said["count"]


def test_numbers_inside(said: dict[str, Any], taken: Snapshot) -> None:
    """Each of the fifty is process 1 of its own pid namespace, and has another number outside."""
    inner = [one for one in taken.processes.values() if len(one.inside) == 2 and one.inside[1] == 1]
    assert len(inner) == said["count"] + 1  # and the one in the user namespace
    assert all(one.inside[0] == one.pid != 1 for one in inner)


def test_mounts_are_findmnts(said: dict[str, Any], taken: Snapshot) -> None:
    """Each table has the mounts that findmnt lists for its process, with number, parent, device and propagation."""
    for pid, listed in said["findmnt"].items():
        table = taken.mounts[taken.processes[int(pid)].namespaces["mnt"]]
        mine = {
            mount.number: (mount.parent, mount.device, mount.root, mount.place, mount.kind, set(mount.options))
            for mount in table
        }
        theirs = {
            one["id"]: (one["parent"], one["maj:min"], one["fsroot"], one["target"], one["fstype"],
                        set(one["vfs-options"].split(",")))
            for one in listed
        }  # fmt: skip
        assert mine == theirs
        words = {one["id"]: set(one["propagation"].split(",")) for one in listed}
        assert {m.number: set(difference_mounts.propagation(m).split(" and ")) for m in table} == words
    assert sum(map(len, said["findmnt"].values())) > 1000


def test_networks_are_ips(said: dict[str, Any], taken: Snapshot) -> None:
    """Links, addresses and routes of both families are those of `ip`, in the machine and in its namespaces."""
    for pid, answers in said["ip"].items():
        assert_as_ip_says(answers, taken, taken.processes[int(pid)].namespaces["net"])
    ways = taken.networks[taken.processes[1].namespaces["net"]].routes
    assert {way.to for way in ways} >= {"192.0.2.0/25", "198.51.100.0/24", "172.30.0.0/24", "2001:db8::/64"}


def assert_as_ip_says(answers: list[Any], taken: Snapshot, inode: int) -> None:
    addresses, *routes = answers
    network = taken.networks[inode]
    names = {link.index: link.name for link in network.links}
    mine = [
        (link.index, link.name, link.kind, link.up, link.mac, link.mtu, names.get(link.master), sorted(link.addresses))
        for link in network.links
    ]
    theirs = [
        (one["ifindex"], one["ifname"], one.get("linkinfo", {}).get("info_kind", ""), "UP" in one["flags"],
         one["address"], one["mtu"], one.get("master"), sorted(map(long_form, one["addr_info"])))
        for one in addresses
    ]  # fmt: skip
    assert mine == sorted(theirs)
    ways = sorted((way.to, way.via, way.device) for way in network.routes)
    assert ways == sorted(map(of_ip_route, [way for listed in routes for way in listed]))


def long_form(address: dict[str, Any]) -> str:
    return f"{address['local']}/{address['prefixlen']}"


def of_ip_route(way: dict[str, Any]) -> tuple[str, str, str]:
    """As the snapshot has it: `ip` leaves out the length of a route to one host, and knows a device for a blackhole."""
    to = way["dst"]
    if to != "default" and "/" not in to:
        to += "/128" if ":" in to else "/32"
    return to, way.get("gateway", ""), "" if way.get("type") == "blackhole" else way.get("dev", "")


def test_both_ends_of_each_cable_are_found(said: dict[str, Any], taken: Snapshot) -> None:
    """Fifty veth pairs have the same indices inside; each end still names the namespace of the other."""
    host = taken.networks[taken.processes[1].namespaces["net"]]
    ports = [link for link in host.links if link.kind == "veth"]
    assert len(ports) == said["count"]
    assert len({port.peer_network for port in ports}) == said["count"]
    for port in ports:
        (far,) = [link for link in taken.networks[port.peer_network].links if link.index == port.peer]
        assert (far.peer, far.peer_network, far.name) == (port.index, host.inode, "eth0")
        # The bench gives the inner end of port N the address 02:...:N, so that the pairs are known from outside.
        assert far.mac == f"02:00:00:00:00:{int(port.name.removeprefix('port')):02x}"


def test_rules_are_read_where_they_are(said: dict[str, Any], taken: Snapshot) -> None:
    """With rules=True each namespace has its own: one has a table, the others none."""
    assert sorted({one.rules for one in taken.networks.values()}, key=str) == [("table ip mine",), ()]
    assert sum(one.rules == ("table ip mine",) for one in taken.networks.values()) == 1
