"""Six containers that do not start: each ends at the step that the exercise says, and only for its one mistake."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.lessons.birth import Birth
from labkit.lessons.patients import PATIENTS, PURPOSE, STEPS, Ward
from labkit.observe import census

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """The six, gone in the end."""
    with Ward(tmp_path / "ward") as made:
        yield made
    assert not made.folder.exists()


@pytest.mark.parametrize("name", PATIENTS)
def test_a_birth_ends_where_the_exercise_says(ward: Ward, tmp_path: Path, name: str) -> None:
    """The first step that a birth of it does not make is the patient's; nothing is left."""
    words = [sys.executable, "-m", "labkit.runtime.life.command", "--root", str(tmp_path / "state")]
    before = census.take()
    with Birth(ward[name].folder, words) as birth, pytest.raises(LabError):
        birth.to("executed")
    assert [step.name for step in birth.steps] == list(STEPS[: STEPS.index(PATIENTS[name].step)])
    assert census.difference(before, census.take()) == []


def test_no_two_end_at_the_same_step() -> None:
    """Six steps, and in another order than that of the birth."""
    steps = [STEPS.index(one.step) for one in PATIENTS.values()]
    assert len(set(steps)) == 6 and steps != sorted(steps)


@pytest.mark.parametrize("name", PATIENTS)
def test_each_says_what_it_is_for(ward: Ward, name: str) -> None:
    """Its purpose stands in its document, and a good program is all that is common to the six."""
    config = ward[name].config
    assert config["annotations"] == {PURPOSE: config["annotations"][PURPOSE]} and config["annotations"][PURPOSE]
    assert str(ward[name].seconds) in json.dumps(config["process"]["args"])


def test_leaving_the_ward_ends_its_process(tmp_path: Path) -> None:
    """The process that has a network to share ends with the ward, and twice is once."""
    ward = Ward(tmp_path / "ward")
    pid = ward["five"].pod
    ward.close()
    ward.close()
    assert not Path(f"/proc/{pid}").exists()
