"""Every picture of every machine: valid XML, narrow enough, nothing cut without a sign or on something else."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.draw import changes, mounttree, network, overlay, processes
from labkit.draw.svg import Canvas, Picture
from labkit.kernel import capabilities
from labkit.observe.model import Change, Network, Snapshot
from labkit.observe.mountinfo import Mount
from labkit.observe.stack import File, Layer, Stack
from tests import draw_odd
from tests.draw_ground import HOST, faults, link, process, snapshot

slowly = settings(deadline=None, max_examples=40,
                  suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip


def right(picture: Picture) -> None:
    """Fail with what a reader would object to."""
    ET.fromstring(picture.svg)
    assert faults(picture) == []
    assert all(line.isprintable() for line in picture.text.split("\n"))
    picture.text.encode()


@slowly
@given(draw_odd.snapshots(), st.none() | st.lists(st.integers(0, 60), max_size=30))
def test_a_matrix_of_anything_is_legible(odd: Snapshot, pids: list[int] | None) -> None:
    """Unknown kinds, missing namespaces, pids that are not there: all of it is drawn and none of it overlaps."""
    right(processes.matrix(odd, pids))


@slowly
@given(draw_odd.snapshots())
def test_a_tree_of_anything_is_legible_and_whole(odd: Snapshot) -> None:
    """Every process stands in the twin once, whoever claims to be its parent."""
    picture = processes.tree(odd)
    right(picture)
    for pid in odd.processes:
        assert sum(f": pid {pid} outside" in line for line in picture.text.split("\n")) == 1


@slowly
@given(draw_odd.snapshots())
def test_a_wiring_of_anything_is_legible(odd: Snapshot) -> None:
    """Wires that lead nowhere or to themselves are no wires, and every namespace has its box."""
    picture = network.wiring(odd)
    right(picture)
    assert sum(line.startswith("network namespace ") for line in picture.text.split("\n")) == len(odd.networks)


@slowly
@given(draw_odd.mounts(), draw_odd.odd_names())
def test_a_mount_tree_of_anything_is_legible(mounts: list[Mount], title: str) -> None:
    """Loops and doubled numbers included."""
    right(mounttree.tree(mounts, title))


@slowly
@given(draw_odd.stacks())
def test_an_overlay_of_anything_is_legible(stack: Stack) -> None:
    """Any sign on any kind of file in any layer."""
    right(overlay.origins(stack))


@slowly
@given(draw_odd.changes(), st.lists(draw_odd.odd_names() | st.just("mount(1) = -1 EPERM"), max_size=20))
def test_changes_of_anything_are_legible(found: list[Change], calls: list[str]) -> None:
    """Any words on either side."""
    right(changes.changes(found, calls))


def test_a_long_detail_takes_more_lines_and_is_not_cut() -> None:
    """Three limits of a new cgroup are wider than the column: they stand below one another, each whole."""
    limits = ["cpu.max 100000 100000", "memory.max 268435456", "pids.max 4096", "cpuset.cpus 0-3"]
    picture = changes.changes([Change("+", "cgroup", "/lesson/by-hand", ", ".join(limits))])
    right(picture)
    drawn = ["".join(words.itertext()) for words in ET.fromstring(picture.svg).iter() if words.tag.endswith("text")]
    assert "…" not in "".join(drawn)
    assert all(any(limit in line for line in drawn) for limit in limits)


def test_the_drops_of_capabilities_are_one_line() -> None:
    """Forty calls that differ in the capability alone name the first and the last; what comes behind is drawn."""
    drops = [f"prctl(PR_CAPBSET_DROP, {name}, 0, 0, 0) = 0" for name in capabilities.NUMBERS]
    picture = changes.changes([], [*drops, "setgroups(0, NULL) = 0"])
    right(picture)
    row, last = picture.text.splitlines()[-2:]
    assert row == f"  prctl(PR_CAPBSET_DROP, CAP_CHOWN … CAP_CHECKPOINT_RESTORE, 0, 0, 0) = 0  × {len(drops)}"
    assert last == "  setgroups(0, NULL) = 0"


def test_a_call_with_many_flags_is_drawn_whole() -> None:
    """Flags have no space between them: the line is broken behind one, and nothing is cut off."""
    kinds = "|".join(f"CLONE_NEW{kind}" for kind in ("NS", "UTS", "IPC", "PID", "NET", "USER", "TIME"))
    picture = changes.changes([], [f"clone3({{flags={kinds}|CLONE_INTO_CGROUP}}, 0x58) = 8178"])
    right(picture)
    assert "CLONE_INTO_CGROUP}, 0x58)" in picture.svg and picture.svg.count("…") == 0


MANY = snapshot(
    (*(process(number, 0 if number == 1 else 1 + number % 7, f"worker-{number}") for number in range(1, 500)),
     process(600, 1, "init", (1,), pid=4026532999)),
    {HOST["net"] + number: Network(HOST["net"] + number, tuple(link(n, f"veth{n}") for n in range(1, 60)), (), None)
     for number in range(40)},
)  # fmt: skip
CROWDS = {
    "matrix": (processes.matrix(MANY._replace(processes={
        pid: one._replace(namespaces={**one.namespaces, "net": pid}) for pid, one in MANY.processes.items()})),
        "and 476 more rows"),
    "tree": (processes.tree(MANY), "… and 452 more processes here, not drawn"),
    "wiring": (network.wiring(MANY), "and 16 more network namespaces, not drawn"),
    "links": (network.wiring(MANY), "and 35 more links, not drawn"),
    "mounts": (mounttree.tree([Mount(n, n - 1 if n % 50 else 0, "0:1", "/", f"/{n}", ("rw",), (), "tmpfs", "none", "rw")
                               for n in range(1, 1001)]), "and 940 more mounts: 940 tmpfs"),
    "overlay": (overlay.origins(Stack((Layer("one", tuple(File(f"f{n}", "file", n) for n in range(100))),))),
                "and 64 more paths, not drawn"),
    "changes": (changes.changes([Change("+", "mount", f"/{n}", "") for n in range(100)], []),
                "… and 61 more changes, not drawn"),
    "calls": (changes.changes([], [f"close({n}) = 0" for n in range(100)]), "… and 60 more calls, not drawn"),
}  # fmt: skip


@pytest.mark.parametrize("name", CROWDS)
def test_a_crowd_is_cut_and_the_picture_says_so(name: str) -> None:
    """Hundreds of them make a picture of a page, which tells how many it leaves out."""
    picture, says = CROWDS[name]
    right(picture)
    root = ET.fromstring(picture.svg)
    assert any("".join(text.itertext()).startswith(says) for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_a_process_in_a_container_is_drawn_before_a_crowd_outside() -> None:
    """Of five hundred processes the one in an inner namespace is not among those left out."""
    assert ">init</text>" in CROWDS["tree"][0].svg


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ((10, 20, "one", 12), "on each other"),
        ((90, 20, "off", 12), "off the paper"),
        ((10, 45, "tiny", 9), "too small"),
        ((40, 60, "on the edge", 12), "on the edge"),
        ((10, 90, "on the line", 12), "on a line"),
    ],
)
def test_the_judge_sees_faults(fault: tuple[float, float, str, float], what: str) -> None:
    """A picture that is wrong in one way is judged to be so: a judge that lets all pass would prove nothing."""
    canvas = Canvas(100, 100, "wrong")
    canvas.text(12, 22, "under it", 12)
    canvas.box(50, 50, 40, 15)
    canvas.line(5, 88, 95, 88)
    assert faults(canvas.picture("")) == []
    canvas.text(*fault)
    assert [one for one in faults(canvas.picture("")) if what in one]
