"""Reading: parsers on recorded text without root, and the census against what a test itself made."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.observe import census, container, mountinfo

# Recorded on Linux 6.12 (the layers one by one) and 6.1 (one option), ids shortened.
NEW = (
    "311 310 0:52 / / rw,relatime - overlay overlay rw,lowerdir+=/v/layers/c,lowerdir+=/v/layers/b,"
    "lowerdir+=/v/layers/a,upperdir=/v/box/upper,workdir=/v/box/work,uuid=on,nouserxattr"
)
OLD = "51 50 0:45 / /m rw shared:7 master:3 - overlay overlay rw,lowerdir=/v/b\\134:x:/v/a,upperdir=/v/u,workdir=/v/w"
TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 172.30.0.0/24 2 0 2
        |-- 172.30.0.2
           /32 host LOCAL
        |-- 172.30.0.255
           /32 link BROADCAST
Local:
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 172.30.0.2
           /32 host LOCAL
"""
STATUS = "Name:\tnginx\nNSpid:\t968\t2\nCapEff:\t00000000a80425fb\nUid:\t0\t0\t0\t0\n"


def test_layers_given_one_by_one_are_bottom_first() -> None:
    """The kernel lists the top layer first, an image the bottom one."""
    (mount,) = mountinfo.parse(NEW)
    assert mountinfo.layers(mount) == (("/v/layers/a", "/v/layers/b", "/v/layers/c"), "/v/box/upper", "/v/box/work")


def test_layers_in_one_option_keep_an_escaped_colon() -> None:
    """lowerdir=b\\:x:a is two folders, and the first is called b:x."""
    (mount,) = mountinfo.parse(OLD)
    assert mountinfo.layers(mount).lower == ("/v/a", "/v/b:x")
    assert mount.propagation == ("shared:7", "master:3")


def test_another_kind_of_mount_has_no_layers() -> None:
    """Asking an ext4 for its layers is an error that names the mount."""
    (mount,) = mountinfo.parse("22 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw")
    assert mount.read_only
    with pytest.raises(ValueError, match="the mount on / is ext4"):
        mountinfo.layers(mount)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_mount_points_name_may_be_anything(name: str) -> None:
    """Space, tab, line feed and backslash come as octal; every other character, other line ends too, as itself."""
    escaped = "".join(f"\\{ord(letter):03o}" if letter in " \t\n\\" else letter for letter in name)
    (mount,) = mountinfo.parse(f"22 1 8:1 / /{escaped} rw - ext4 /dev/sda1 rw\n")
    assert mount.place == f"/{name}"


def test_this_processs_mounts_are_findmnts() -> None:
    """The parser and findmnt(8) see the same mount points, in the same order."""
    listed = json.loads(subprocess.check_output(["findmnt", "--list", "--json", "--output", "TARGET"]))
    assert [mount.place for mount in mountinfo.read()] == [entry["target"] for entry in listed["filesystems"]]


def test_addresses_are_the_hosts_own() -> None:
    """Of a fib_trie the local addresses count, each once; networks, broadcasts and the loopback do not."""
    assert container.local_addresses(TRIE) == ["172.30.0.2"]


def test_status_fields() -> None:
    """Values of several words are kept, one space apart."""
    assert container.parse_status(STATUS)["NSpid"] == "968 2"


def test_namespaces_are_lsns_s() -> None:
    """The inode of each kind is the one that lsns(8) names for this process."""
    listed = json.loads(subprocess.check_output(["lsns", "--json", "-p", str(os.getpid())]))["namespaces"]
    table = container.namespace_table({"me": "self"})["me"]
    assert {entry["type"]: int(entry["ns"]) for entry in listed}.items() <= table.items()
    assert len(listed) >= 7


def test_a_difference_names_what_came_and_went() -> None:
    """Twice the same name is two things; the order does not matter."""
    before = {"link": ["lo (device)", "a (veth)"], "mount": ["tmpfs on /x"]}
    after = {"link": ["lo (device)"], "mount": ["tmpfs on /x", "tmpfs on /x"]}
    assert census.difference(before, after) == ["+ mount tmpfs on /x", "- link a (veth)"]
    assert census.difference(before, before) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")
def test_the_census_sees_each_kind_of_thing() -> None:
    """In namespaces of its own, a mount, a link, a rule and a process each appear, and go again."""
    program = """
import json, subprocess
from labkit.observe import census
def sh(words): subprocess.run(words, shell=True, check=True)
before = census.take()
sh("mount -t tmpfs x /mnt; ip link add dummy9 type bridge; nft add table ip mine; nft add chain ip mine c")
child = subprocess.Popen(["unshare", "-pf", "sleep", "60"])
while not any("sleep" in name for name in census.take()["process"]): pass
middle = census.take()
subprocess.run(["pkill", "-KILL", "-P", str(child.pid)]); child.wait()
sh("umount /mnt; ip link del dummy9; nft delete table ip mine")
print(json.dumps([census.difference(before, middle), census.difference(before, census.take())]))
"""
    words = ["unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    came, left = json.loads(done.stdout)
    assert "+ mount tmpfs on /mnt" in came
    assert "+ link dummy9 (bridge)" in came
    assert "+ rule table ip mine" in came
    assert sum(line.startswith("+ process sleep") for line in came) == 1
    assert left == []


def test_the_command_compares_with_an_earlier_count(tmp_path: object) -> None:
    """`labkit census --json`, then --since: 0 and a sentence when nothing changed; nonsense is refused."""
    file = f"{tmp_path}/census.json"
    base = [sys.executable, "-m", "labkit", "census"]
    with open(file, "w") as output:
        subprocess.run([*base, "--json"], stdout=output, check=True)
    same = subprocess.run([*base, "--since", file], capture_output=True, text=True)
    assert "nothing came, nothing went" in same.stdout or same.returncode == 1
    with open(file, "w") as output:
        output.write('{"link": ["gone0 (veth)"]}')
    other = subprocess.run([*base, "--since", file], capture_output=True, text=True)
    assert other.returncode == 1
    assert "- link gone0 (veth)" in other.stdout
    with open(file, "w") as output:
        output.write("nonsense")
    wrong = subprocess.run([*base, "--since", file], capture_output=True, text=True)
    assert wrong.returncode == 125
    assert "holds no census" in wrong.stderr


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20437 1
   1: 0100007F:1F91 0100007F:A3C2 01 00000000:00000000 00:00000000 00000000     0        0 20438 1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


def test_listening_ports_are_those_in_state_0a() -> None:
    """A connection that is established is no listener; both families count, the lowest port first."""
    assert container.listening_ports(TCP, TCP6) == [80, 8080]
    assert container.listening_ports("", TCP.splitlines()[0]) == []


def test_a_port_is_waited_for_until_somebody_listens() -> None:
    """A socket of this process is found; a port of nobody ends in TimeoutError that names it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        container.wait_for_port(os.getpid(), port, 5)
    with pytest.raises(TimeoutError, match=str(port)):
        container.wait_for_port(os.getpid(), port, 0.1)
