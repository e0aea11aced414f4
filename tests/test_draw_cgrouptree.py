"""The picture of the cgroup tree: every cgroup once, below its parent, with what is set and who is inside."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from labkit.draw import cgrouptree
from labkit.observe import cgroups
from labkit.observe.model import Cgroup
from tests.draw_ground import SPACE

NEW = {"cgroup.freeze": "0", "cgroup.type": "domain", "cpu.max": "max 100000", "cpu.weight": "100", "io.max": "",
       "memory.max": "max", "memory.oom.group": "0", "pids.max": "max"}  # fmt: skip


def group(path: str, *pids: int, hands: str = "", **limits: str) -> Cgroup:
    """A cgroup in which the limits given are set."""
    named = {name.replace("_", "."): text for name, text in limits.items()}
    return Cgroup(path, (), {"cgroup.subtree_control": hands, **NEW, **named}, {}, pids)


GROUPS = {
    one.path: one
    for one in (
        group("/demo", hands="cpu memory"),
        group("/demo/web", 1, 2, 3, 4, 5, 6, memory_max="268435456", cpu_max="50000 100000"),
        group("/demo/web2"),
        group("/demo/web/old", 8, cgroup_freeze="1", io_max="7:0 rbps=1\n8:0 wbps=2"),
    )
}


def test_every_cgroup_stands_below_its_parent() -> None:
    """A name that begins like another's does not make it a child of that."""
    lines = cgrouptree.tree(GROUPS).text.splitlines()[1:]
    assert [line.split("  ")[0] or line[: len(line) - len(line.lstrip())] + line.split()[0] for line in lines] == [
        "demo", "  web", "    old", "  web2"
    ]  # fmt: skip


def test_only_what_is_set_is_shown() -> None:
    """A new cgroup's `max` and `100` are no limits; a file with several lines is one limit."""
    lines = cgrouptree.tree(GROUPS).text.splitlines()
    assert "cpu.max 50000 100000, memory.max 268435456" in lines[2]
    assert "cgroup.freeze 1, io.max 7:0 rbps=1, 8:0 wbps=2" in lines[3]
    assert lines[4].split() == ["web2", "-", "-", "-"]
    assert "cpu memory" in lines[1]


def test_processes_are_named_or_counted() -> None:
    """The first ones by name, the rest as a number; without names the number alone."""
    named = cgrouptree.tree(GROUPS, names={1: "nginx", 2: "sh"}).text.splitlines()
    assert named[2].endswith("nginx, sh and 4 more")
    assert cgrouptree.tree(GROUPS).text.splitlines()[2].endswith(" 6")


def test_what_lies_deeper_is_counted_with_the_last_level() -> None:
    """With two levels, the seven processes of web and below stand with web."""
    lines = cgrouptree.tree(GROUPS, depth=2).text.splitlines()
    assert len(lines) == 4 and lines[2].endswith(" 7")


def test_many_cgroups_are_cut_and_counted() -> None:
    """Of a hundred the first rows are drawn, and the rest is told."""
    many = {f"/g{number:03}": group(f"/g{number:03}") for number in range(100)}
    picture = cgrouptree.tree(many)
    assert picture.text.splitlines()[-1] == f"and {100 - cgrouptree.ROWS} more"
    assert sum("g0" in "".join(one.itertext()) for one in ET.fromstring(picture.svg).iter(f"{SPACE}text")) == 40


def test_nothing_is_drawn_past_the_edge() -> None:
    """Long names and long limits are cut to their column, and no row lies below the paper."""
    long = group("/demo/" + "x" * 200, *range(9), cpuset_cpus=",".join(map(str, range(0, 400, 2))))
    root = ET.fromstring(cgrouptree.tree({**GROUPS, long.path: long}, "a title").svg)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for one in root.iter(f"{SPACE}rect"):
        assert float(one.attrib.get("x", 0)) + float(one.attrib["width"]) <= width
        assert float(one.attrib.get("y", 0)) + float(one.attrib["height"]) <= height


def test_a_machine_without_version_two_is_drawn_too() -> None:
    """No cgroups is a picture that says so; and whatever this machine has can be drawn."""
    assert "no cgroups" in cgrouptree.tree({}).text
    assert cgrouptree.tree(cgroups.read()).text
