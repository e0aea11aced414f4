"""The picture of an image's documents: the twin is the tree, a wrong hash says so, and any names are legible."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.draw.documents import Node, descent
from tests.draw_ground import faults
from tests.draw_odd import odd_names

INDEX = Node("index", "sha256:" + "ab12" * 16, True)
MANIFESTS = [
    Node("manifest linux/amd64", "sha256:" + "cd34" * 16, True),
    Node("manifest linux/arm64", "sha256:" + "ef56" * 16),
]
PARTS = [Node("configuration", "sha256:" + "12ab" * 16, True), Node("layer 1", "sha256:" + "34cd" * 16, False)]

nodes = st.builds(Node, odd_names(), odd_names(), st.none() | st.booleans())


def test_the_twin_is_the_tree() -> None:
    """What a document names stands below it, one step further in."""
    assert descent("nginx:1", INDEX, MANIFESTS, PARTS).text.splitlines() == [
        "nginx:1",
        "    index  ab12ab12ab12  fits its bytes",
        "        manifest linux/amd64  cd34cd34cd34  fits its bytes",
        "            configuration  12ab12ab12ab  fits its bytes",
        "            layer 1  34cd34cd34cd  is not its bytes'",
        "        manifest linux/arm64  ef56ef56ef56  not fetched",
    ]


def test_the_picture_says_the_same() -> None:
    """Names, digests and what was found of each."""
    picture = descent("nginx:1", INDEX, MANIFESTS, PARTS)
    drawn = {"".join(text.itertext()) for text in ET.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"nginx:1", "index", "layer 1", "34cd34cd34cd", "is not its bytes'", "not fetched"} <= drawn
    assert faults(picture) == []


def test_many_layers_are_cut_and_the_picture_says_so() -> None:
    """A hundred layers make a picture of a page."""
    picture = descent("many", INDEX, MANIFESTS, [PARTS[0]._replace(name=f"layer {n}") for n in range(100)])
    assert faults(picture) == [] and "and 80 more, not drawn" in picture.text


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(odd_names(), nodes, st.lists(nodes, max_size=25), st.lists(nodes, max_size=25))
def test_a_picture_of_anything_is_legible(tag: str, index: Node, manifests: list[Node], parts: list[Node]) -> None:
    """Any words, no manifest, no part."""
    picture = descent(tag, index, manifests, parts)
    ET.fromstring(picture.svg)
    assert faults(picture) == []
    assert all(line.isprintable() for line in picture.text.split("\n"))
