"""The matplotlib painter: the same shapes as the SVG, whatever the words."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings

from labkit.draw import changes, layers, mounttree, namespaces, network, overlay, processes, wires
from labkit.draw.svg import Canvas, Picture
from labkit.observe import mountinfo
from labkit.observe.model import Change
from tests import draw_odd
from tests.draw_ground import SPACE, snapshot
from tests.test_draw_overlay import File
from tests.test_draw_overlay import layers as stack_of
from tests.test_draw_snapshots import MOUNTS

PICTURES = {
    "matrix": processes.matrix(snapshot()),
    "tree": processes.tree(snapshot()),
    "wiring": network.wiring(snapshot()),
    "mounts": mounttree.tree(mountinfo.parse(MOUNTS)),
    "overlay": overlay.origins(stack_of((File("a", "file", 1),), (File("a", "whiteout"),))),
    "changes": changes.changes([Change("+", "mount", "/a", "tmpfs")], ["close(3) = 0"]),
    "namespaces": namespaces.matrix({"here": {"pid": 1}, "there": {"pid": 2}}, {"pid": "numbers"}),
    "layers": layers.stack([layers.Slab("one", 5, 6, True)]),
    "wires": wires.wiring([wires.Wire("web", "eth0", "10.0.0.2", "veth1", "br0", "10.0.0.1")]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_figure_has_the_pictures_shapes(name: str) -> None:
    """As many boxes, lines and words as the SVG, the same words, and the same size at 96 dots an inch."""
    picture = PICTURES[name]
    figure, root = picture.figure(), ET.fromstring(picture.svg)
    (axes,) = figure.axes
    drawn = [one.get_text() for one in axes.texts if one.get_text()]
    said = [(one.text if one.find(f"{SPACE}title") is None else one.find(f"{SPACE}title").tail) or ""
            for one in root.iter(f"{SPACE}text")]  # fmt: skip
    assert drawn == [words for words in said if words]
    assert len(axes.patches) == len(list(root.iter(f"{SPACE}rect"))) - 1  # less the paper
    assert len(axes.lines) + sum(1 for one in axes.texts if not one.get_text()) == len(list(root.iter(f"{SPACE}line")))
    assert [side * 96 for side in figure.get_size_inches()] == pytest.approx(
        [float(side) for side in root.attrib["viewBox"].split()[2:]])  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(draw_odd.odd_names())
def test_any_words_are_painted_without_a_warning(words: str) -> None:
    """Dollar signs are no formula, and letters that the font lacks are a sign for that."""
    canvas = Canvas(400, 60, words)
    canvas.label(10, 30, words, 380)
    canvas.picture("").figure().savefig(io.BytesIO(), format="png")


def test_words_stand_where_the_svg_has_them() -> None:
    """Painted text lies within the room for which it was cut, at its baseline."""
    canvas = Canvas(400, 60, "words")
    canvas.label(10, 30, "The quick brown fox jumps over the lazy dog, twice, and twice again", 300, 13, bold=True)
    figure = canvas.picture("").figure()
    figure.canvas.draw()
    area = figure.axes[0].texts[0].get_window_extent()
    assert area.x0 >= 9 and area.x1 <= 311
    assert 60 - 30 - 6 <= area.y0 <= 60 - 30 + 1


def test_a_picture_of_its_svg_alone_has_no_figure() -> None:
    """What cannot be painted says why."""
    with pytest.raises(ValueError, match="from its SVG alone"):
        Picture("<svg/>", "").figure()
