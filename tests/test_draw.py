"""Pictures: the same data gives the same picture, the text twin says the same, and nothing spills over."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.draw import doctor, layers, namespaces, sheet, svg, wires

ISOLATES = {"mnt": "the mount table", "pid": "process numbers", "user": "users"}
COLUMNS = {
    "here": {"mnt": 4026531841, "pid": 4026531836, "user": 4026531837},
    "box": {"mnt": 4026532240, "pid": 4026532243, "user": 4026531837},
}
SLABS = [
    layers.Slab("layer 1", 16_506_442, 52, False, "libraries"),
    layers.Slab("writable layer", 2, 4, True, "itself"),
]
WIRE = wires.Wire("web", "eth0", "172.30.0.2", "lk18e6e258dc", "labkit0", "172.30.0.1", ["8080 -> 80"])
PICTURES = {
    "namespaces": namespaces.matrix(COLUMNS, ISOLATES),
    "layers": layers.stack(SLABS),
    "wires": wires.wiring([WIRE, WIRE._replace(container="db", published=[])]),
}
SPACE = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", PICTURES)
def test_every_element_lies_on_the_paper(name: str) -> None:
    """Boxes end within the picture, and no line of text is wider than what is left of it."""
    root = ET.fromstring(PICTURES[name].svg)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    for box in root.iter(f"{SPACE}rect"):
        assert float(box.get("x", 0)) + float(box.attrib["width"]) <= width
        assert float(box.get("y", 0)) + float(box.attrib["height"]) <= height
    for text in root.iter(f"{SPACE}text"):
        long = len(text.text or "") * float(text.attrib["font-size"]) * svg.WIDTH
        left = float(text.attrib["x"]) - {"start": 0, "middle": long / 2, "end": long}[text.attrib["text-anchor"]]
        assert left >= -1 and left + long <= width + 1, text.text


@pytest.mark.parametrize("name", PICTURES)
def test_the_twin_says_the_same_numbers(name: str) -> None:
    """Every number and address in the picture's text stands in the plain text too, and the other way round."""
    numbers = re.compile(r"\d[\d.]{3,}")
    drawn = {word for text in ET.fromstring(PICTURES[name].svg).iter(f"{SPACE}text")
             for word in numbers.findall(text.text or "")}  # fmt: skip
    assert drawn == set(numbers.findall(PICTURES[name].text))


def test_shared_and_own_are_told_apart_without_colour() -> None:
    """A namespace of one's own says so in words, in both forms."""
    picture = PICTURES["namespaces"]
    assert picture.svg.count(" own<") == 2
    assert [line.split()[3] for line in picture.text.splitlines()[1:]] == ["own", "own", "shared"]


def test_the_writable_layer_is_on_top() -> None:
    """Images list the bottom first; the picture and its text show the top first."""
    assert PICTURES["layers"].text.splitlines()[1].startswith("writable layer")


def test_names_from_outside_cannot_break_the_picture() -> None:
    """A container called <script> is drawn as these letters."""
    picture = wires.wiring([WIRE._replace(container="<script>&'\"")])
    assert "<script>&'\"" in [text.text for text in ET.fromstring(picture.svg).iter(f"{SPACE}text")]


@given(st.text(max_size=200), st.floats(20, 500), st.floats(8, 20))
def test_fitted_words_fit(words: str, width: float, size: float) -> None:
    """Whatever the words, what is left of them is no wider than the room, or three letters."""
    assert len(svg.fit(words, width, size)) <= max(width / (size * svg.WIDTH), 3)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1640, "1.6 kB"), (17_000_000, "17 MB"),
                                             (2_500_000_000_000, "2500 GB")])  # fmt: skip
def test_sizes_are_read_as_people_write_them(count: int, text: str) -> None:
    """One digit behind the point below ten, none above."""
    assert svg.size(count) == text


def test_a_notebook_gets_both_forms() -> None:
    """SVG for the page, text for the terminal and the comparison."""
    bundle = PICTURES["wires"]._repr_mimebundle_()
    assert bundle["image/svg+xml"].startswith("<svg")
    assert bundle["text/plain"] == str(PICTURES["wires"])


def test_a_sheet_holds_its_pictures_one_below_the_other() -> None:
    """The sheet is as high as its parts and their captions together, and is well-formed."""
    root = ET.fromstring(sheet.stack([(name, picture.svg) for name, picture in PICTURES.items()]))
    inner = root.findall(f"{SPACE}svg")
    assert len(inner) == 3
    tops = [float(one.attrib["y"]) for one in inner]
    heights = [float(one.attrib["height"]) for one in inner]
    for number in range(2):
        assert tops[number] + heights[number] < tops[number + 1]


def test_the_doctors_map_is_a_picture() -> None:
    """Each state is drawn, and the notebook gets a PNG."""
    found = [{"group": "machine", "title": state, "state": state, "found": "word " * 30} for state in doctor.LOOK]
    assert doctor.tiles(found)._repr_png_().startswith(b"\x89PNG")


def test_the_twin_of_the_map_lists_what_is_essential() -> None:
    """Only what the course cannot do without, whatever else was found."""
    found = [
        {"group": "machine", "title": "disk", "state": "ok", "essential": False},
        {"group": "network", "title": "veth", "state": "missing", "essential": True},
    ]
    assert "veth" in doctor.essentials(found)
    assert "disk" not in doctor.essentials(found)
