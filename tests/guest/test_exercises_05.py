"""The exercises that need controllers of cgroup v2, judged where there are some."""

from __future__ import annotations

import pytest

from labkit.lessons import task, verify

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("name", [one.name for one in task.every() if one.controllers])
def test_the_courses_exercise(name: str) -> None:
    """An exercise of the course judges its skeleton, its reference and its wrong answers as it should."""
    assert [f"{row.answer}: {row.unexpected}" for row in verify.rows(task.find(name)) if row.unexpected] == []
