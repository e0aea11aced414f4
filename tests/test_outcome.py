"""What `make test` reads from a run of pytest, and which failures it calls unsteady."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import outcome

TESTS = """
import pytest
from pathlib import Path

def test_right(): pass
def test_wrong(): assert 3 == 4
def test_left(): pytest.skip("not here")
def test_once():
    once = Path(__file__).with_name("once")
    seen = once.exists()
    once.touch()
    assert seen, "the first time"
@pytest.fixture
def broken():
    yield
    raise ValueError("afterwards")
def test_untidy(broken): pass
"""
ONCE, WRONG, UNTIDY, LEFT = (f"test_made.py::test_{name}" for name in ("once", "wrong", "untidy", "left"))


@pytest.fixture
def ran(tmp_path: Path) -> list[outcome.Outcome]:
    """The same tests, twice."""
    (tmp_path / "test_made.py").write_text(TESTS)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", "--junitxml=found.xml"]
    both = []
    for _ in range(2):
        subprocess.run([sys.executable, *words, "test_made.py"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        both.append(outcome.read(tmp_path / "found.xml"))
    return both


def test_each_test_has_its_end_and_each_failure_its_words(ran: list[outcome.Outcome]) -> None:
    """A failure, a fixture that fails afterwards, a skip; the lines that pytest marks."""
    first, _ = ran
    assert (first.passed, first.skipped) == ({"test_made.py::test_right"}, {LEFT})
    assert sorted(first.failures) == sorted([ONCE, WRONG, UNTIDY]) and first.files == ["test_made.py"]
    assert "assert 3 == 4" in first.failures[WRONG] and "afterwards" in first.failures[UNTIDY]


def test_unsteady_is_what_passes_alone_and_nothing_else(ran: list[outcome.Outcome]) -> None:
    """The test that fails once; not the one that fails twice, nor one that did not run again."""
    first, second = ran
    assert list(outcome.unsteady(first, second)) == [ONCE]
    assert outcome.unsteady(first, outcome.Outcome(set(), set(), {})) == {}


def test_many_files_are_no_accident(ran: list[outcome.Outcome]) -> None:
    """A second try is for few files, and for files that there are."""
    first, _ = ran
    assert outcome.worth_a_second_try(first)
    assert not outcome.worth_a_second_try(outcome.Outcome(set(), set(), {}))
    many = {f"test_{number}.py::test_it": "" for number in range(outcome.FEW + 1)}
    assert not outcome.worth_a_second_try(outcome.Outcome(set(), set(), many))
    assert not outcome.worth_a_second_try(outcome.Outcome(set(), set(), {"None::test_it": ""}))


def test_no_file_is_no_test(tmp_path: Path) -> None:
    """A run that broke off before it wrote has neither passed nor failed."""
    assert outcome.read(tmp_path / "none.xml") == outcome.Outcome(set(), set(), {})
