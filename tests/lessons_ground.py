"""Ground for the tests of exercises: a learner who has done nothing, and exercises made up for one test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.lessons import progress, task
from labkit.lessons.task import Task

SKELETON = '# exercise: {name}\nimport os\n\n\ndef answer(word):\n    """Make it so."""\n    ...\n'
REFERENCE = "# exercise: {name}\nimport os\n\n\ndef answer(word):\n    return word.upper()\n"
CHECK = """
from labkit.lessons.outcome import Wrong


def check(function, lab):
    word = lab.token()
    seen = lab.call(function, word, limit=LIMIT)
    if seen != word.upper():
        raise Wrong(f"it came to {seen!r}, and not to {word.upper()!r}")
"""
# name: what the function does
WRONG = {"lower": "return word.lower()", "nothing": "return None", "twice": "return word.upper() * 2"}
PROMISED = {"lower": "it came to '", "nothing": "it came to None", "twice": "and not to"}

Make = Callable[..., Task]


@pytest.fixture
def learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `my` of a learner who has done nothing yet."""
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "my"))
    return tmp_path / "my"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A function that writes an exercise, sound unless told otherwise, into a course with no other."""
    root = tmp_path / "tasks"
    monkeypatch.setattr(task, "TASKS", root)

    def made(name: str = "shout", *, limit: float = 10, files: dict[str, str] | None = None, **keys: str) -> Task:
        folder = root / name
        folder.mkdir(parents=True)
        found = {
            "skeleton.py": SKELETON.format(name=name),
            "reference.py": REFERENCE.format(name=name),
            "check.py": CHECK.replace("LIMIT", str(limit)),
            **{f"wrong_{one}.py": f'"""{PROMISED[one]}"""\n\n\ndef answer(word):\n    {WRONG[one]}\n' for one in WRONG},
            **(files or {}),
        }
        table = {
            "name": f'"{name}"', "notebook": '"04"', "title": '"Shout"', "minutes": "7", "core": "true",
            "function": '"answer"', "write": '"answer(word): the word in capitals"',
            "hints": '["Look at str.", "upper()"]', **keys,
        }  # fmt: skip
        found["task.toml"] = "".join(f"{key} = {value}\n" for key, value in table.items() if value)
        for file, text in found.items():
            if text:
                (folder / file).write_text(text)
        return task.load(folder)

    return made
