"""Top floor: the parts of a notebook, with the minutes that each takes, as its reader is told.

Owns: reading the table at a notebook's beginning (`| part | minutes | core |`), and the
notes for instructors that go with a whole notebook.

Read: CONTRIBUTING.md, "Adding an exercise".
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError
from labkit.lessons import progress, task
from labkit.lessons.task import Task

ROW = re.compile(r"^# \| ([^|]+) \| (\d+) \| (core|optional) \|$", re.MULTILINE)


class Part(NamedTuple):
    """A row of the table."""

    title: str
    minutes: int
    core: bool

    @property
    def exercise(self) -> bool:
        """Whether the row is an exercise: its folder knows more of it."""
        return "exercise" in self.title


def sources() -> dict[str, Path]:
    """{number: file} of the notebooks whose source is here."""
    return {path.name[:2]: path for path in sorted((progress.TREE / "notebooks" / "source").glob("[0-9][0-9]_*.py"))}


def rows(notebook: str) -> list[Part]:
    """The table of a notebook; empty when it has none."""
    path = sources().get(notebook)
    found = ROW.findall(path.read_text()) if path else []
    return [Part(title.strip(), int(minutes), kind == "core") for title, minutes, kind in found]


def sections(notebook: str) -> list[Part]:
    """What is read and run, between the exercises."""
    return [part for part in rows(notebook) if not part.exercise]


def match(row: Part, known: list[Task]) -> Task | None:
    """The exercise that a row is about."""
    said = row.title.lower()
    return next((one for one in known if one.name in said or one.title.lower() in said), None)


def course(notebook: str, known: list[Task]) -> list[Part | Task]:
    """What a reader goes through, in order; an exercise that the table lacks comes at the end."""
    known = [one for one in known if one.notebook == notebook]
    found: list[Part | Task] = [row if not row.exercise else (match(row, known) or row) for row in rows(notebook)]
    return [*found, *(one for one in known if one not in found)]


def notes(notebook: str) -> str:
    """`instructor` of tasks/04.toml; empty when there is none.

    Raises LabError for a file that is no TOML.
    """
    file = task.TASKS / f"{Path(notebook).name}.toml"
    try:
        return str(tomllib.loads(file.read_text()).get("instructor", "")).strip()
    except FileNotFoundError:
        return ""
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"cannot read {file}", why=str(error)) from error
