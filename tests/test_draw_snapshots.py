"""Pictures of snapshots: what stands in them, and that it stays where it is from run to run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from labkit.draw import changes, mounttree, network, processes
from labkit.draw.svg import Picture
from labkit.draw.tags import tag
from labkit.observe import mountinfo
from labkit.observe.model import Change, Snapshot
from tests.draw_ground import HOST, PROCESSES, SPACE, link, process, snapshot

MACHINE = snapshot()
MOUNTS = """\
22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
29 22 0:6 / /sys/kernel/security ro,nosuid shared:8 - securityfs securityfs rw
60 28 254:1 /srv/data /mnt/my\\040data rw master:1 - ext4 /dev/vda1 rw
62 60 0:45 / /mnt/my\\040data rw shared:30 master:1 - tmpfs tmpfs rw
63 28 0:44 / /opt rw unbindable - sysfs sysfs ro
64 28 0:46 / /tmp rw - tmpfs none rw
"""


def texts(picture: Picture) -> list[tuple[float, float, str]]:
    """Where each line of text stands, in the painter's order."""
    return [(float(one.attrib["x"]), float(one.attrib["y"]), "".join(one.itertext()))
            for one in ET.fromstring(picture.svg).iter(f"{SPACE}text")]  # fmt: skip


def test_the_same_letter_in_a_column_is_the_same_namespace() -> None:
    """Without colours: letters are equal just where inodes are, kind by kind."""
    lines = processes.matrix(MACHINE).text.split("\n")
    kinds = lines[0].split()[1:]
    rows = [line.split()[-len(kinds) :] for line in lines[1 : len(PROCESSES) + 1]]
    for column, kind in enumerate(kinds):
        for one, letters in zip(PROCESSES, rows, strict=True):
            for other, others in zip(PROCESSES, rows, strict=True):
                same = one.namespaces[kind] == other.namespaces[kind]
                assert (letters[column] == others[column]) == same, (kind, one.pid, other.pid)


def test_colours_follow_letters() -> None:
    """In one column a letter has one colour, and neighbours in the alphabet differ."""
    assert len({tag(number).fill for number in range(6)}) == 6
    assert len({tag(number).letter for number in range(2000)}) == 2000
    assert [tag(number).letter for number in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


def test_a_namespace_without_a_process_is_a_row_of_its_own() -> None:
    """What only a file keeps alive is shown with the file."""
    last = processes.matrix(MACHINE).text.split("\n")[len(PROCESSES) + 1]
    assert re.split(r"\s{2,}", last)[:2] == ["no process", "held by /run/netns/blue"]


def test_pids_are_shown_in_the_order_asked_for_and_missing_ones_are_told() -> None:
    """The first that is asked for gets the first letters."""
    text = processes.matrix(MACHINE, [4711, 1, 99]).text.split("\n")
    assert text[1].split()[:4] == ["nginx", "pid", "4711,", "1"]
    assert text[1].split()[5] == "A"
    assert text[2].split()[3] == "B"
    assert text[-1] == "not in this snapshot: pid 99"


def test_what_may_not_be_seen_is_a_question_mark() -> None:
    """A missing kind is not drawn as a shared one."""
    hidden = process(5, 1, "hidden")._replace(namespaces={"mnt": HOST["mnt"]})
    picture = processes.matrix(snapshot((process(1, 0, "init"), hidden), {}))
    assert [words for *_, words in texts(picture)].count("?") == 7
    assert picture.text.split("\n")[2].split()[3:] == ["A"] + 7 * ["-"]


def test_processes_that_are_alike_share_a_row_in_a_crowd() -> None:
    """Thirty workers in one set of namespaces are one row that counts them."""
    workers = (process(number, 0, "worker") for number in range(1, 31))
    lines = processes.matrix(snapshot((*workers, process(40, 1, "box", (1,), pid=7)), {})).text.split("\n")
    assert lines[1].startswith("worker   pid 1 and 29 alike")
    assert lines[2].startswith("box")


def test_the_tree_nests_pid_namespaces_and_gives_both_numbers() -> None:
    """A container's first process hangs below who started it, within its own box; who entered says so."""
    assert processes.tree(MACHINE).text.split("\n")[4:] == [
        "      labkit-runtime: pid 4700 outside",
        "        pid namespace B 4026532243",
        "          nginx: pid 4711 outside, 1 inside",
        "            nginx: pid 4712 outside, 7 inside",
        "          sh: pid 4800 outside, 23 inside (entered, child of pid 412)",
        "      labkit-runtime: pid 4720 outside",
        "        pid namespace C 4026532500",
        "          init: pid 4731 outside, 1 inside",
        "            pid namespace D 4026532600",
        "              inner: pid 4740 outside, 9 inside, 1 inside",
    ]


def test_processes_in_a_circle_are_drawn_once_each() -> None:
    """Parents may loop in a snapshot, which is not taken in one instant."""
    picture = processes.tree(snapshot((process(5, 6, "a"), process(6, 5, "b"), process(7, 5, "c")), {}))
    assert sorted(line.split(":")[0].strip() for line in picture.text.split("\n")[1:]) == ["a", "b", "c"]


def test_wires_join_the_two_ends_of_each_veth_pair() -> None:
    """Three pairs: two across namespaces, one within; each end names the other, and each is a line of three pieces."""
    picture = network.wiring(MACHINE)
    for words in ("veth to eth0 in B", "veth to eth0 in C", "veth to lk18e6e258dc in A", "veth to right"):
        assert words in picture.text
    wires = [one for one in ET.fromstring(picture.svg).iter(f"{SPACE}line") if one.attrib["stroke-width"] == "2"]
    assert len(wires) == 3 * 3


@pytest.mark.parametrize("count", [3, 10, 22])
def test_no_wire_lies_on_another(count: int) -> None:
    """Between many containers and a host no two level pieces lie at one height, no two upright ones in one lane."""
    hosts = tuple(link(n, f"v{n}", peer=2, network=n) for n in range(10, 10 + count))
    host = MACHINE.networks[HOST["net"]]._replace(links=hosts)
    boxes = {n: host._replace(inode=n, links=(link(2, "eth0", peer=n, network=HOST["net"]),))
             for n in range(10, 10 + count)}  # fmt: skip
    picture = network.wiring(snapshot(networks={HOST["net"]: host, **boxes}))
    pieces = [tuple(float(one.attrib[key]) for key in ("x1", "y1", "x2", "y2"))
              for one in ET.fromstring(picture.svg).iter(f"{SPACE}line")]  # fmt: skip
    assert len(pieces) == 3 * count
    for axis in (0, 1):
        along = [(piece[axis], *sorted((piece[1 - axis], piece[3 - axis]))) for piece in pieces
                 if piece[axis] == piece[axis + 2]]  # fmt: skip
        for number, (at, begin, end) in enumerate(along):
            for other, start, stop in along[number + 1 :]:
                assert abs(at - other) >= 2 or stop < begin or end < start


def test_a_wire_is_not_drawn_to_a_namesake() -> None:
    """Link 5 here and link 5 there are different links: both ends must say the same, or the end is not seen."""
    here = MACHINE.networks[HOST["net"]]._replace(links=(link(2, "eth0", peer=5, network=77),))
    there = here._replace(inode=77, links=(link(5, "other", peer=3, network=HOST["net"]),))
    text = network.wiring(snapshot(networks={HOST["net"]: here, 77: there})).text
    assert text.count("veth, other end not seen") == 2


def test_the_mount_tree_says_how_mounts_spread() -> None:
    """Each word of propagation stands there, private for none; bind mounts show their part as findmnt does."""
    text = mounttree.tree(mountinfo.parse(MOUNTS), "this machine").text.split("\n")
    assert [re.split(r"\s{2,}", line.strip()) for line in text[2:]] == [
        ["/", "ext4", "/dev/vda1", "shared:1"],
        ["/sys", "sysfs", "sysfs", "shared:7"],
        ["/sys/kernel/security", "securityfs", "securityfs", "ro", "shared:8"],
        ["/mnt/my data (covered)", "ext4", "/dev/vda1[/srv/data]", "master:1"],
        ["/mnt/my data", "tmpfs", "tmpfs", "shared:30, master:1"],
        ["/opt", "sysfs", "sysfs", "ro (fs)", "unbindable"],
        ["/tmp", "tmpfs", "none", "private"],
    ]
    assert [len(line) - len(line.lstrip()) for line in text[2:]] == [0, 2, 4, 2, 4, 2, 2]


def test_changes_are_grouped_and_failed_calls_marked() -> None:
    """Two mounts are one group; a call that failed is in a box of its own, a repeated one counted."""
    found = [Change("+", "mount", "/a", "tmpfs"), Change("-", "link", "veth0", ""), Change("+", "mount", "/b", "tmpfs")]
    picture = changes.changes(found, ['mount("x") = -1 EPERM', "close(3) = 0", "close(3) = 0"])
    assert picture.text.split("\n") == [
        "what changed in the kernel:", "  mount: 2 appeared", "    + /a  tmpfs", "    + /b  tmpfs", "  link: 1 went",
        "    - veth0", "system calls that were made:", '  mount("x") = -1 EPERM', "  close(3) = 0  × 2",
    ]  # fmt: skip
    boxes = [one for one in ET.fromstring(picture.svg).iter(f"{SPACE}rect") if float(one.get("x", 0)) > 400]
    assert len(boxes) == 1


def test_longer_pids_move_nothing() -> None:
    """A run in which pids have two digits more gives the same picture but for the digits."""
    short, long = ([Change("+", "process", f"sleep (pid {pid})", f"pid 1 inside, {pid} outside"),
                    Change("+", "pid namespace", "pid:[4026532243]", f"of sh (pid {pid}), sleep (pid {pid})")]
                   for pid in (47, 4711))  # fmt: skip
    assert changes.changes(short).svg == changes.changes(long).svg.replace("4711", "47")


def test_no_change_is_a_picture_that_says_so() -> None:
    """A cell that changed nothing gets an answer, not an empty page."""
    picture = changes.changes([], [])
    assert "nothing that a snapshot shows" in picture.text
    assert any(words == "nothing that a snapshot shows" for *_, words in texts(picture))


EMPTY = Snapshot({}, {}, {}, {}, {})


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (processes.matrix(EMPTY), "no process to show"),
        (processes.tree(EMPTY), "none in this snapshot"),
        (network.wiring(EMPTY), "no network namespace in this snapshot"),
        (mounttree.tree([]), "none"),
    ],
)
def test_an_empty_snapshot_is_a_picture_that_says_so(picture: Picture, says: str) -> None:
    """Nothing to draw is a fact about the machine, and is told."""
    assert says in [words for *_, words in texts(picture)]


DRAWINGS = {"matrix": processes.matrix, "tree": processes.tree, "wiring": network.wiring}


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_order_of_reading_is_no_matter(name: str) -> None:
    """The same machine read in another order gives the same bytes."""
    turned = MACHINE._replace(
        processes=dict(reversed(MACHINE.processes.items())),
        namespaces=dict(reversed(MACHINE.namespaces.items())),
        networks=dict(reversed(MACHINE.networks.items())),
    )
    draw = DRAWINGS[name]
    assert draw(turned).svg == draw(MACHINE).svg
    assert draw(turned).text == draw(MACHINE).text


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_new_process_moves_no_other_sideways_nor_renames_a_namespace(name: str) -> None:
    """What was there stays in its order, at its place from the left, under its letter."""
    new = process(5000, 733, "new", (1,), pid=4026539999, net=4026539998)
    old = {inode: one for inode, one in MACHINE.networks.items() if inode != 4026532700}  # the last one anyway
    more = {**old, 4026539998: MACHINE.networks[4026532700]._replace(inode=4026539998)}
    before = [(x, words) for x, _, words in texts(DRAWINGS[name](snapshot(networks=old)))]
    rest = iter([(x, words) for x, _, words in texts(DRAWINGS[name](snapshot((*PROCESSES, new), more)))])
    assert len(before) > 20
    assert all(one in rest for one in before)


def test_a_title_that_is_name_and_command_in_one_stands_once() -> None:
    """A process that has named itself has no other command line to show."""
    titled = process(5, 1, "labkit:launch")._replace(command=("labkit:launch",))
    picture = processes.tree(snapshot((titled,), {}))
    assert picture.svg.count(">labkit:launch<") == 1
