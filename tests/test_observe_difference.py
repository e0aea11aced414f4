"""The difference of two snapshots that are made up here: what counts as a change, its words and its order."""

from __future__ import annotations

import random

import pytest

from labkit.observe import difference
from labkit.observe.model import Cgroup, Change, Link, Namespace, Network, Process, Route, Snapshot
from labkit.observe.mountinfo import Mount

HOST = {"mnt": 1, "pid": 2, "net": 3, "user": 4}
INSIDE = {"mnt": 11, "pid": 12, "net": 3, "user": 4}


def process(pid: int, **fields: object) -> Process:
    """A shell in the host's namespaces, but for what is given."""
    plain = Process(pid, 1, pid * 10, "sh", ("sh",), "S", (pid,), 1, 0, 0, HOST, 0x3FF, 0, False, "/")
    return plain._replace(**fields)  # type: ignore[arg-type]


def mount(number: int, place: str, kind: str = "ext4", parent: int = 1, **fields: object) -> Mount:
    """A private mount whose device is its own number."""
    plain = Mount(number, parent, f"8:{number}", "/", place, ("rw",), (), kind, kind, "rw")
    return plain._replace(**fields)  # type: ignore[arg-type]


TABLE = (mount(1, "/", parent=0), mount(2, "/proc", "proc"), mount(3, "/sys", "sysfs"), mount(4, "/dev", "tmpfs"))
LO = Link(1, "lo", "", False, "00:00:00:00:00:00", 65536, 0, 0, 0, ())
BRIDGE = Link(2, "br0", "bridge", True, "02:00:00:00:00:01", 1500, 0, 0, 0, ("172.30.0.1/24",))
VETH = Link(3, "port1", "veth", True, "02:00:00:00:00:02", 1500, 2, 2, 33, ())


def snapshot(*processes: Process, **fields: object) -> Snapshot:
    """A machine with these processes, and namespaces as they are in them."""
    spaces: dict[tuple[str, int], list[int]] = {}
    for one in processes:
        for key in one.namespaces.items():
            spaces.setdefault(key, []).append(one.pid)
    plain = Snapshot(
        {one.pid: one for one in processes},
        {key: Namespace(*key, tuple(pids), (), 4, 0) for key, pids in spaces.items()},
        {1: TABLE}, {}, {},
    )  # fmt: skip
    return plain._replace(**fields)  # type: ignore[arg-type]


def copied() -> tuple[Mount, ...]:
    """The table as a new mount namespace has it: every number is another, the rest the same."""
    return tuple(one._replace(number=one.number + 100, parent=one.parent + 100) for one in TABLE)


def kinds(changes: list[Change]) -> list[tuple[str, str]]:
    return [(one.sign, one.kind) for one in changes]


def test_nothing_changed() -> None:
    """A snapshot differs in nothing from itself, nor from one in which processes ran on."""
    before = snapshot(process(5), process(6))
    after = snapshot(process(5, state="R", threads=3), process(6, parent=5))
    assert difference.compare(before, after) == []
    assert difference.words([]) == "nothing changed"


def test_a_container_in_a_sentence() -> None:
    """A new process 1 in new namespaces with two mounts of its own is told as a person would."""
    inner = process(4711, parent=5, inside=(4711, 1), namespaces=INSIDE, name="sleep")
    table = (*copied(), mount(150, "/proc", "proc", 102), mount(151, "/mnt", "tmpfs", 101))
    after = snapshot(process(5), inner, mounts={1: TABLE, 11: table})
    changes = difference.compare(snapshot(process(5)), after)
    said = "2 mounts, 1 mount namespace, 1 pid namespace, 1 process: pid 1 inside, 4711 outside"
    assert difference.words(changes) == said
    assert [one.name for one in changes] == ["/proc", "/mnt", "mnt:[11]", "pid:[12]", "sleep (pid 4711)"]
    back = difference.compare(after, snapshot(process(5)))
    assert difference.words(back) == "gone: 1 mount namespace, 1 pid namespace, 1 process"


def test_the_sentences_of_the_course() -> None:
    """The order of kinds is fixed, and the numbers of the one process end the sentence."""
    changes = [Change("+", "mount", "/a", ""), Change("+", "mount", "/b", ""), Change("+", "pid namespace", "x", ""),
               Change("+", "process", "sleep (pid 4711)", "pid 1 inside, 4711 outside")]  # fmt: skip
    assert difference.words(changes) == "2 mounts, 1 pid namespace, 1 process: pid 1 inside, 4711 outside"


def test_a_pid_that_came_back_is_another_process() -> None:
    """The same pid with another start is one process that went and one that came."""
    before, after = snapshot(process(5)), snapshot(process(5, started=999, name="sh"))
    changes = [one for one in difference.compare(before, after) if one.kind == "process"]
    assert kinds(changes) == [("+", "process"), ("-", "process")]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "nginx", "name sh -> nginx"),
        ("command", ("nginx", "-g"), "command sh -> nginx -g"),
        ("uid", 1000, "uid 0 -> 1000"),
        ("capabilities", 0x1FF, "capabilities 00000000000003ff -> 00000000000001ff"),
        ("seccomp", 2, "seccomp none -> filter"),
        ("no_new_privileges", True, "no_new_privileges no -> yes"),
        ("cgroup", "/labkit", "cgroup / -> /labkit"),
        ("namespaces", {**HOST, "net": 9}, "another network namespace: 9"),
        ("state", "Z", "ended, not yet reaped by its parent"),
    ],
)
def test_what_matters_of_a_process(field: str, value: object, said: str) -> None:
    """A change of who it is, of what it may and of where it belongs is told; nothing else is beside it."""
    changes = difference.compare(snapshot(process(5)), snapshot(process(5, **{field: value})))
    assert [one.detail for one in changes if one.kind == "process"] == [said]


def test_threads_of_the_kernel_are_no_change() -> None:
    """Workers of the kernel's own come, go and take other names as work does."""
    first = process(30, parent=2, command=(), name="kworker/0:1-events")
    second = process(31, parent=2, command=(), name="kworker/1:0")
    renamed = first._replace(name="kworker/0:1-mm")
    assert difference.compare(snapshot(process(5), first), snapshot(process(5), renamed, second)) == []


def test_mounts_of_one_namespace_are_found_by_number() -> None:
    """An unmount and a mount at the same place are two changes; a remount and a move are one each."""
    after = (*TABLE[:2], TABLE[2]._replace(options=("ro",)), TABLE[3]._replace(place="/run"), mount(9, "/mnt", "tmpfs"))
    changes = difference.compare(snapshot(process(5)), snapshot(process(5), mounts={1: after}))
    assert changes == [
        Change("+", "mount", "/mnt", "tmpfs, private"),
        Change("~", "mount", "/sys", "rw -> ro"),
        Change("~", "mount", "/run", "moved from /dev"),
    ]
    again = (*TABLE[:3], mount(9, "/dev", "tmpfs"))
    changes = difference.compare(snapshot(process(5)), snapshot(process(5), mounts={1: again}))
    assert kinds(changes) == [("+", "mount"), ("-", "mount")]


def test_a_moved_mount_takes_along_what_is_on_it() -> None:
    """mount --move of a tree is one change, not one for each mount in it."""
    before = (*TABLE, mount(5, "/dev/pts", "devpts", 4))
    after = (*TABLE[:3], TABLE[3]._replace(place="/x"), before[4]._replace(place="/x/pts"))
    changes = difference.compare(snapshot(process(5), mounts={1: before}), snapshot(process(5), mounts={1: after}))
    assert changes == [Change("~", "mount", "/x", "moved from /dev")]


def test_propagation_that_changed_for_all_is_one_change() -> None:
    """mount --make-rprivate / is told once; the number of the peer group is nobody's business."""
    shared = tuple(one._replace(propagation=(f"shared:{one.number}",)) for one in TABLE)
    other = tuple(one._replace(propagation=(f"shared:{one.number + 9}",)) for one in TABLE)
    before = snapshot(process(5), mounts={1: shared})
    assert difference.compare(before, snapshot(process(5), mounts={1: other})) == []
    changes = difference.compare(before, snapshot(process(5)))
    assert changes == [Change("~", "mount tree", "/", "4 mounts: shared -> private")]


def test_a_pivoted_root_is_a_mount_and_a_tree_that_went() -> None:
    """After pivot_root in a new namespace there is the new root, and the copy of the old tree is gone as one."""
    inner = process(7, parent=5, namespaces={**HOST, "mnt": 11})
    after = snapshot(process(5), inner, mounts={1: TABLE, 11: (mount(200, "/", "overlay", 0),)})
    changes = [one for one in difference.compare(snapshot(process(5)), after) if one.kind.startswith("mount")]
    assert kinds(changes) == [("+", "mount"), ("-", "mount tree"), ("+", "mount namespace")]
    assert changes[1].detail.startswith("4 mounts")


def test_a_copy_is_compared_with_an_origin_that_is_not_the_scopes() -> None:
    """In the scope of a tree the host's table is no part of the snapshot, and still known for the comparison."""
    inner = process(7, parent=5, namespaces={**HOST, "mnt": 11})
    before = snapshot(process(5), mounts={}, origins={1: TABLE})
    after = snapshot(process(5), inner, mounts={11: (*copied(), mount(150, "/mnt", "tmpfs", 101))}, origins={1: TABLE})
    changes = difference.compare(before, after)
    assert [one.name for one in changes if one.kind == "mount"] == ["/mnt"]
    # One that left its namespace itself, too.
    moved = snapshot(process(5, namespaces={**HOST, "mnt": 11}), mounts={11: copied()}, origins={1: TABLE})
    changes = difference.compare(before, moved)
    assert [one for one in changes if one.kind in ("mount", "mount tree")] == []


def test_an_inode_that_came_back_is_another_namespace() -> None:
    """The number of a namespace that ended goes to the next one: by the kernel's unique number, else by members."""
    inner, other = (process(pid, parent=5, namespaces={**HOST, "mnt": 11}) for pid in (7, 8))
    before = snapshot(process(5), inner, mounts={1: TABLE, 11: copied()})
    after = snapshot(process(5), other, mounts={1: TABLE, 11: (*copied(), mount(150, "/mnt", "tmpfs", 101))})
    changes = difference.compare(before, after)
    both = [("+", "mount"), ("+", "mount namespace"), ("-", "mount namespace"), ("+", "process"), ("-", "process")]
    assert kinds(changes) == both

    def numbered(one: Snapshot, number: int) -> Snapshot:
        key = ("mnt", 11)
        return one._replace(namespaces={**one.namespaces, key: one.namespaces[key]._replace(unique=number)})

    same = difference.compare(numbered(before, 77), numbered(after, 77))
    assert kinds(same) == [("+", "mount"), ("+", "process"), ("-", "process")]
    kept = snapshot(process(5), inner, other, mounts=dict(after.mounts))
    assert ("+", "mount namespace") in kinds(difference.compare(numbered(before, 77), numbered(kept, 78)))


def test_who_holds_a_namespace_is_told() -> None:
    """ip netns add holds a namespace without a member; the path says how."""
    before = snapshot(process(5))
    named = Namespace("net", 40, (), ("/run/netns/blue",), 4, 0)
    after = before._replace(namespaces={**before.namespaces, ("net", 40): named})
    held = Change("+", "network namespace", "net:[40]", "held by /run/netns/blue")
    assert difference.compare(before, after) == [held]


def test_a_new_network_has_a_loopback_device_anyway() -> None:
    """A new network namespace brings no link; with the device up and a cable, that is what changed."""
    inner = process(7, parent=5, namespaces={**HOST, "net": 33})
    fresh = snapshot(process(5), inner, networks={33: Network(33, (LO,), (), None)})
    assert [one.kind for one in difference.compare(snapshot(process(5)), fresh)] == ["network namespace", "process"]
    up = LO._replace(up=True, addresses=("127.0.0.1/8",))
    cable = VETH._replace(index=2, name="eth0", master=0)
    wired = Network(33, (up, cable), (Route("default", "172.30.0.1", "eth0"),), ())
    changes = difference.compare(snapshot(process(5)), snapshot(process(5), inner, networks={33: wired}))
    assert [one for one in changes if "namespace" not in one.kind and one.kind != "process"] == [
        Change("+", "link", "eth0", "veth, up, the other end in net:[33]"),
        Change("~", "link", "lo", "down -> up"),
        Change("+", "address", "127.0.0.1/8", "on lo"),
        Change("+", "route", "default via 172.30.0.1 by eth0", ""),
    ]


def test_links_of_a_network_that_was_there() -> None:
    """Ports, addresses, names and rules change under the index, and rules only where both asked for them."""
    before = snapshot(process(5), networks={3: Network(3, (LO, BRIDGE, VETH), (), ("table ip a",))})
    links = (LO, BRIDGE._replace(addresses=()), VETH._replace(name="port2", master=0, up=False))
    after = snapshot(process(5), networks={3: Network(3, links, (), ("table ip b",))})
    assert difference.compare(before, after) == [
        Change("~", "link", "port2", "was called port1, up -> down, port of br0 -> nothing"),
        Change("-", "address", "172.30.0.1/24", "on br0"),
        Change("+", "rule", "table ip b", ""),
        Change("-", "rule", "table ip a", ""),
    ]
    unasked = after._replace(networks={3: Network(3, links, (), None)})
    assert "rule" not in [one.kind for one in difference.compare(before, unasked)]


def test_limits_are_changes_and_counters_only_when_asked_for() -> None:
    """memory.max is somebody's decision, memory.current moves by itself."""
    old = Cgroup("/a", ("memory",), {"memory.max": "max", "pids.max": "max"}, {"memory.current": 1}, (5,))
    new = old._replace(limits={"memory.max": "1048576", "pids.max": "max"}, counters={"memory.current": 2})
    before, after = (snapshot(process(5), cgroups={"/a": one}) for one in (old, new))
    limit = Change("~", "limit", "/a/memory.max", "max -> 1048576")
    assert difference.compare(before, after) == [limit]
    assert difference.words([limit]) == "changed: limit /a/memory.max: max -> 1048576"
    both = [limit, Change("~", "counter", "/a/memory.current", "1 -> 2")]
    assert difference.compare(before, after, counters=True) == both
    made = difference.compare(snapshot(process(5)), after)
    assert made == [Change("+", "cgroup", "/a", "memory.max 1048576")]


def test_the_order_does_not_depend_on_the_order_of_reading() -> None:
    """However the readers' answers are ordered, the changes come out the same."""
    many = [process(pid, parent=5, inside=(pid, pid), namespaces={**HOST, "mnt": 100 + pid}) for pid in range(10, 30)]
    before = snapshot(process(5))
    tables = {1: TABLE, **{100 + pid: (*copied(), mount(150, "/mnt", "tmpfs", 101)) for pid in range(10, 30)}}
    first = difference.compare(before, snapshot(process(5), *many, mounts=tables))
    shaken = random.Random(7)
    for _ in range(5):
        shaken.shuffle(many)
        mixed = dict(shaken.sample(sorted(tables.items()), len(tables)))
        after = snapshot(*many, process(5), mounts=mixed)
        after = after._replace(
            namespaces={key: one._replace(members=tuple(sorted(one.members))) for key, one in after.namespaces.items()}
        )
        assert difference.compare(before, after) == first
    assert len(first) == 60
