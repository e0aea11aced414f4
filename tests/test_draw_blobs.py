"""The picture of shared blobs: each blob once, the sums, and that any image makes a legible one."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.draw.blobs import Blob, Held, shared
from tests.draw_ground import faults
from tests.draw_odd import odd_names

BASE = Blob("layer", "sha256:" + "ab12" * 16, 1_100_000)
ONE = Blob("layer", "sha256:" + "cd34" * 16, 300_000)
DOCUMENT = Blob("manifest", "sha256:" + "ef56" * 16)
IMAGES = [Held("base", (BASE,)), Held("app", (DOCUMENT, BASE, ONE))]

blobs = st.builds(Blob, st.sampled_from(["layer", "manifest", "configuration"]) | odd_names(), odd_names(),
                  st.integers(0, 1 << 45))  # fmt: skip
images = st.lists(st.builds(Held, odd_names(), st.lists(blobs, max_size=12).map(tuple)), max_size=9)


def test_a_shared_blob_is_counted_once() -> None:
    """Two images with one base: its bytes stand under the first, the other points to them, and the sums differ."""
    lines = [line.split("  ") for line in shared(IMAGES).text.splitlines()]
    rows = {line[0]: [word.strip() for word in line[1:] if word.strip()] for line in lines[1:-1]}
    assert rows["manifest"] == ["ef56ef56ef56", "-", "its own"]
    assert shared(IMAGES).text.splitlines()[2].split() == ["layer", "ab12ab12ab12", "1.1", "MB", "the", "same", "bytes"]
    assert shared(IMAGES).text.endswith("for each image: 2.5 MB; in a store, each once: 1.4 MB")


def test_images_without_a_common_blob_share_nothing() -> None:
    """No cell says so, and the two sums are one."""
    text = shared([Held("a", (BASE,)), Held("b", (ONE,))]).text
    assert "the same bytes" not in text
    assert text.endswith("for each image: 1.4 MB; in a store, each once: 1.4 MB")


def test_the_picture_says_what_its_twin_says() -> None:
    """Every word of a cell is in both."""
    picture = shared(IMAGES)
    drawn = {text.text for text in ET.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"1.1 MB", "300 kB", "the same bytes", "its own"} <= drawn
    assert all(word in picture.text for word in ("1.1 MB", "300 kB", "the same bytes", "its own"))


def test_a_crowd_is_cut_and_says_so() -> None:
    """Forty blobs of eight images make a picture of a page."""
    many = [Held(f"image {n}", tuple(Blob("layer", f"sha256:{n * 5 + m:064x}", 1) for m in range(5))) for n in range(8)]
    picture = shared(many)
    assert faults(picture) == []
    assert "and 10 more blobs, not drawn" in picture.text and "and 2 more images, not drawn" in picture.text


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(images)
def test_a_picture_of_anything_is_legible(found: list[Held]) -> None:
    """Names and digests that nobody would choose, the same image twice, no image at all."""
    picture = shared(found)
    ET.fromstring(picture.svg)
    assert faults(picture) == []
    assert all(line.isprintable() for line in picture.text.split("\n"))
