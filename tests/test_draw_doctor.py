"""The map of what the doctor found: nothing leaves its tile, and what does not fit says so."""

from __future__ import annotations

import pytest

from labkit.draw import doctor
from labkit.draw.words import width

ROOM = (doctor.STEP - doctor.GAP - 0.16) * 96
LONG = "uid 65534 made one and is root in it; kernel.unprivileged_userns_clone = 1, user.max_user_namespaces = 19620"


@pytest.mark.parametrize("words", ["", "ok", LONG, "x" * 300, "word " * 90])
def test_what_was_found_fits_into_its_tile(words: str) -> None:
    """At most LINES lines, none wider than the tile; an ellipsis exactly where something is missing."""
    lines = doctor.lines(words)
    assert len(lines) <= doctor.LINES
    assert all(width(line, doctor.SMALL * doctor.PIXELS) <= ROOM for line in lines)
    assert ("…" in "".join(lines)) == (" ".join(lines) != " ".join(words.split()))


def test_no_text_of_the_figure_leaves_its_tile() -> None:
    """Measured by matplotlib itself, which draws it: every text lies within a tile or beside none."""
    findings = [{"group": "namespaces", "title": f"kind {number}", "found": LONG[: 9 * number], "state": "ok"}
                for number in range(12)]  # fmt: skip
    figure = doctor.tiles(findings).figure
    (axes,) = figure.axes
    tiles = [patch.get_window_extent() for patch in axes.patches]
    texts = [text.get_window_extent() for text in axes.texts if text.get_text() != "namespaces"]
    assert len(tiles) == 12
    for box in texts:
        assert any(
            tile.x0 <= box.x0 and box.x1 <= tile.x1 and tile.y0 <= box.y0 and box.y1 <= tile.y1 for tile in tiles
        )
