"""What tests of pictures stand on: a machine made up by hand, and a judge that measures with a real font."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font, LoadFlags

from labkit.draw.svg import Picture
from labkit.observe.model import Link, Namespace, Network, Process, Route, Snapshot

SPACE = "{http://www.w3.org/2000/svg}"
HOST = dict(zip(("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time"),
                (4026531841, 4026531838, 4026531839, 4026531836, 4026531840, 4026531837, 4026531835, 4026531834),
                strict=True))  # fmt: skip
WIDEST, SMALLEST = 820, 10.5  # pixels: a notebook's cell, the smallest letters


def process(number: int, parent: int, name: str, inside: tuple[int, ...] = (), **own: int) -> Process:
    """A process that shares every namespace with the host but those in `own`; the higher its number, the younger."""
    return Process(number, parent, number * 10, name, (name, "--option"), "S", (number, *inside), 1, 0, 0,
                   {**HOST, **own}, 0, 0, False, "/")  # fmt: skip


def link(index: int, name: str, kind: str = "veth", peer: int = 0, network: int = 0, master: int = 0,
         addresses: tuple[str, ...] = (), up: bool = True) -> Link:  # fmt: skip
    """A link with a made-up MAC address."""
    return Link(index, name, kind, up, "02:42:00:00:00:01", 1500, master, peer, network, addresses)


BOX, SIDE = 4026532243, 4026532500
OWN = {"mnt": 4026532240, "uts": 4026532241, "ipc": 4026532242, "pid": BOX, "net": 4026532245, "cgroup": 4026532246}
PROCESSES = (
    process(1, 0, "systemd"),
    process(412, 1, "sshd"),
    process(733, 1, "jupyter-lab"),
    process(4700, 733, "labkit-runtime"),
    process(4711, 4700, "nginx", (1,), **OWN),
    process(4712, 4711, "nginx", (7,), **OWN),
    process(4720, 733, "labkit-runtime"),
    process(4731, 4720, "init", (1,), **{**OWN, "pid": SIDE, "net": 4026532501, "user": 4026532502}),
    process(4740, 4731, "inner", (9, 1), **{**OWN, "pid": 4026532600, "net": 4026532501, "user": 4026532502}),
    process(4800, 412, "sh", (23,), **OWN),  # entered the first container from outside
)
NETWORKS = {
    HOST["net"]: Network(
        HOST["net"],
        (
            link(1, "lo", "", addresses=("127.0.0.1/8", "::1/128")),
            link(2, "ens3", "", addresses=("10.0.2.15/24",)),
            link(3, "labkit0", "bridge", addresses=("172.30.0.1/16",)),
            link(5, "lk18e6e258dc", peer=4, network=4026532245, master=3),
            link(7, "lk77aa00bb11", peer=6, network=4026532501, master=3),
        ),
        (Route("default", "10.0.2.2", "ens3"), Route("172.30.0.0/16", "", "labkit0")),
        None,
    ),
    4026532245: Network(
        4026532245,
        (link(1, "lo", "", addresses=("127.0.0.1/8",)),
         link(4, "eth0", peer=5, network=HOST["net"], addresses=("172.30.0.2/16", "fe80::42:acff:fe1e:2/64"))),
        (Route("default", "172.30.0.1", "eth0"),),
        None,
    ),
    4026532501: Network(
        4026532501,
        (link(1, "lo", "", up=False), link(6, "eth0", peer=7, network=HOST["net"], addresses=("172.30.0.3/16",)),
         link(8, "left", peer=9), link(9, "right", peer=8, up=False)),
        (Route("default", "172.30.0.1", "eth0"),),
        None,
    ),
    4026532700: Network(4026532700, (link(1, "lo", "", up=False),), (), None),
}  # fmt: skip


def snapshot(processes: tuple[Process, ...] = PROCESSES, networks: dict[int, Network] | None = None) -> Snapshot:
    """The made-up machine, with the namespaces that its processes are in and one that a file holds."""
    members: dict[tuple[str, int], list[int]] = {}
    for one in processes:
        for kind, inode in one.namespaces.items():
            members.setdefault((kind, inode), []).append(one.pid)
    around = {("pid", BOX): HOST["pid"], ("pid", SIDE): HOST["pid"], ("pid", 4026532600): SIDE}
    spaces = {key: Namespace(*key, tuple(sorted(pids)), (), HOST["user"], around.get(key, 0))
              for key, pids in members.items()}  # fmt: skip
    networks = NETWORKS if networks is None else networks
    if 4026532700 in networks:
        spaces["net", 4026532700] = Namespace("net", 4026532700, (), ("/run/netns/blue",), HOST["user"], 0)
    return Snapshot({one.pid: one for one in processes}, spaces, {}, {}, networks)


class Area(NamedTuple):
    """Where something stands, in pixels."""

    left: float
    top: float
    right: float
    bottom: float
    what: str

    def overlaps(self, other: Area, slack: float = 0.5) -> bool:
        """Whether they share more than `slack` pixels."""
        return (self.left + slack < other.right and other.left + slack < self.right
                and self.top + slack < other.bottom and other.top + slack < self.bottom)  # fmt: skip

    def inside(self, other: Area) -> bool:
        """Whether all of it lies in the other."""
        return (other.left <= self.left and self.right <= other.right
                and other.top <= self.top and self.bottom <= other.bottom)  # fmt: skip


@cache
def font(mono: bool, bold: bool) -> tuple[FT2Font, frozenset[int]]:
    """One of matplotlib's own fonts and the letters that it has."""
    name = f"DejaVuSans{'Mono' if mono else ''}{'-Bold' if bold else ''}.ttf"
    found = FT2Font(str(Path(get_data_path()) / "fonts" / "ttf" / name))
    found.set_size(100, 72)
    return found, frozenset(found.get_charmap())


@cache
def advance(letter: str, mono: bool, bold: bool) -> float:
    """How wide a letter is, in parts of the font's size; those that the font lacks are taken as one square."""
    found, known = font(mono, bold)
    if ord(letter) not in known:
        return 1.0
    return float(found.load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance) / 65536 / 100


def measured(words: str, size: float, mono: bool, bold: bool) -> float:
    """How wide words are in DejaVu, in pixels."""
    return sum(advance(letter, mono, bold) for letter in words) * size


def faults(picture: Picture) -> list[str]:
    """What a reader would object to: text cut off by the paper, too small, on other text, on an edge or a wire."""
    root = ET.fromstring(picture.svg)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    found = [f"the picture is {width:g} pixels wide"] if width > WIDEST else []
    texts, boxes = [], []
    for text in root.iter(f"{SPACE}text"):
        tip = text.find(f"{SPACE}title")
        words = (text.text if tip is None else tip.tail) or ""
        size, x, y = float(text.attrib["font-size"]), float(text.attrib["x"]), float(text.attrib["y"])
        long = measured(words, size, "monospace" in text.attrib["font-family"], "font-weight" in text.attrib)
        left = x - {"start": 0, "middle": long / 2, "end": long}[text.attrib["text-anchor"]]
        texts.append(Area(left, y - 0.76 * size, left + long, y + 0.22 * size, words))
        found += [f"{size:g} pixels are too small: {words}"] if size < SMALLEST else []
    for box in root.iter(f"{SPACE}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        boxes.append(Area(x, y, x + float(box.attrib["width"]), y + float(box.attrib["height"]), "box"))
    paper = Area(0, 0, width, height, "paper")
    found += [f"off the paper: {one}" for one in texts + boxes if not one.inside(paper)]
    lines = [Area(*sorted_ends(line), "line") for line in root.iter(f"{SPACE}line")]
    found += [f"a line off the paper: {one}" for one in lines if not one.inside(paper)]
    filled = [one for one in texts if one.what.strip()]
    filled.sort(key=lambda one: one.top)
    found += [f"on each other: {one.what} / {other.what}" for one, other in near(filled) if one.overlaps(other)]
    for text_area in filled:
        found += [f"on the edge of a box: {text_area} {box}" for box in boxes
                  if text_area.overlaps(box) and not text_area.inside(box) and not box.inside(text_area)]  # fmt: skip
        found += [f"on a line: {text_area}" for line in lines if text_area.overlaps(line, -0.5)]
    return found


def sorted_ends(line: ET.Element) -> tuple[float, float, float, float]:
    """A line's ends, the top left first; every line in our pictures is level or upright."""
    x1, y1, x2, y2 = (float(line.attrib[name]) for name in ("x1", "y1", "x2", "y2"))
    assert x1 == x2 or y1 == y2, "a slanting line needs a better judge"
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def near(areas: list[Area]) -> list[tuple[Area, Area]]:
    """Pairs that may touch, of areas sorted by their top."""
    if len(areas) < 60:
        return list(combinations(areas, 2))
    return [(one, other) for number, one in enumerate(areas) for other in areas[number + 1 : number + 60]
            if other.top < one.bottom]  # fmt: skip
