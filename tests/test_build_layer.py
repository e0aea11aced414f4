"""Does a step's writable folder become a layer that says all that the step did, or nothing at all?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.image.build.layer import beneath, settle

# A user's overlay has the second one (`userxattr`); only root may set the first.
MARKS = [pytest.param("trusted.overlay.opaque", marks=pytest.mark.root), "user.overlay.opaque"]


def stack(here: Path, mark: str) -> list[Path]:
    """Two layers: the lower one has d/old, in the upper one d was deleted and made again."""
    (here / "one/d").mkdir(parents=True)
    (here / "one/d/old").write_text("old")
    (here / "two/d").mkdir(parents=True)
    os.setxattr(here / "two/d", mark, b"y")
    return [here / "one", here / "two"]


@pytest.mark.parametrize("mark", MARKS)
def test_an_empty_folder_that_hides_something_is_kept(tmp_path: Path, mark: str) -> None:
    """A folder that was emptied by rm and mkdir is a change, though it looks as the one below does."""
    below, upper = stack(tmp_path, mark)
    settle(upper, [below], 1)
    assert (upper / "d").is_dir()


@pytest.mark.parametrize("mark", MARKS)
def test_what_a_layer_hides_is_not_beneath(tmp_path: Path, mark: str) -> None:
    """A file below an opaque folder is not there, whoever made the mark."""
    lower = stack(tmp_path, mark)
    assert beneath(lower, "d/old") is None and beneath(lower[:1], "d/old") == lower[0] / "d/old"
