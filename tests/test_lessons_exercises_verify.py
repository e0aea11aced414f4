"""`labkit exercises`, the table of all answers, and the course's own exercises in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labkit.cli import main
from labkit.lessons import commands, parts, progress, source, task, verify

if TYPE_CHECKING:
    from lessons_ground import Make

pytest_plugins = ["lessons_ground"]
pytestmark = pytest.mark.usefixtures("learner")
SOURCES = Path(__file__).resolve().parents[1] / "notebooks" / "source"

ANSWER = "# exercise: shout\ndef answer(word):\n    {}\n"


def as_root(function: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that makes children."""
    return pytest.mark.root(pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")(function))


def unexpected(made: task.Task) -> list[str]:
    return [f"{row.answer}: {row.unexpected}" for row in verify.rows(made) if row.unexpected]


@as_root
def test_a_sound_exercise_has_no_unexpected_row(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Skeleton not attempted, reference right, each wrong answer wrong in its words: exit status 0, and the table."""
    make(
        files={
            "wrong_twice.py": '"""it came to 7"""\n' + ANSWER.format("return 7"),
            "wrong_lower.py": '"""raised AttributeError"""\n' + ANSWER.format("return word.loud()"),
        }
    )
    assert main(["exercises", "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r"  +", line)[2:4] for line in lines if line.startswith("ok ")] == [
        ["skeleton", "not attempted"], ["reference", "right"],
        ["wrong_lower", "wrong"], ["wrong_nothing", "wrong"], ["wrong_twice", "wrong"],
    ]  # fmt: skip
    assert lines[-1] == "1 exercises, 5 answers, 0 unexpected"


LENIENT = "def check(function, lab):\n    lab.call(function, 'a')\n"
FROM_A_FLOOR = ANSWER.format("from labkit.kernel import mounts; return word.upper()")
FROM_ABOVE = ANSWER.format("import labkit.image; return word.upper()")
# how the row begins that says so: the files that are wrong
BAD = {
    "skeleton: as an attempt it is right": {"skeleton.py": ANSWER.format("return word.upper()")},
    "skeleton: as an attempt it is broken": {"check.py": "def check(f, lab):\n    lab.call(f, 'a').upper()\n"},
    "skeleton: expected: not attempted": {"skeleton.py": "1 / 0"},
    "reference: expected: right": {"reference.py": ANSWER.format("return 1")},
    "wrong_lower: expected: wrong": {"check.py": LENIENT},
    "wrong_nothing: expected: wrong": {"check.py": "1 / 0"},
    "wrong_lower: the message lacks: other words": {
        "wrong_lower.py": '"""other words"""\n' + ANSWER.format("return 1")
    },
    "wrong_lower: its file's docstring does not say": {"wrong_lower.py": ANSWER.format("return 1")},
    "wrong_nothing: promises the same words as lower": {
        "wrong_lower.py": '"""it came to None"""\n' + ANSWER.format("return")
    },
    "the files: 2 wrong answers, 3 are the least": {"wrong_lower.py": ""},
    "the files: reference.py imports labkit.kernel.mounts": {"reference.py": FROM_A_FLOOR},
    "the files: reference.py imports labkit.image": {"reference.py": FROM_ABOVE},
    "the files: reference.py does not begin with": {"reference.py": ANSWER.format("return word.upper()")[5:]},
}


@as_root
@pytest.mark.parametrize("row", BAD)
def test_an_unsound_exercise_is_found(make: Make, row: str) -> None:
    """Each mistake that an author can make is an unexpected row."""
    found = unexpected(make(files=BAD[row]))
    assert any(one.startswith(row) for one in found), found


@as_root
def test_an_unexpected_row_is_an_exit_status(make: Make) -> None:
    """CI reads the status."""
    make(files={"check.py": LENIENT})
    assert main(["exercises", "--verify", "shout"]) == 1


@pytest.mark.parametrize(
    "code",
    [
        *("import os", "from labkit.kernel import syscalls, constants as C"),
        "from labkit.kernel.syscalls import call\nimport labkit.kernel.constants",
    ],
)
def test_what_a_reference_may_import(code: str) -> None:
    """System calls and their constants are allowed, and all that is not labkit's."""
    assert verify.foreign(source.parsed(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        *("import labkit", "from labkit import kernel", "from labkit.kernel import syscalls, mounts"),
        *("def f():\n    from labkit.image.store import Store", "from . import x"),
    ],
)
def test_what_a_reference_may_not_import(code: str) -> None:
    """What learners are to write is not taken from labkit, in a function neither."""
    assert len(verify.foreign(source.parsed(code))) == 1


@as_root
@pytest.mark.parametrize("name", [one.name for one in task.every() if not one.controllers])
def test_the_courses_exercise(name: str) -> None:
    """An exercise of the course judges its skeleton, its reference and its wrong answers as it should."""
    assert unexpected(task.find(name)) == []


def test_starter_cells_are_the_skeletons() -> None:
    """Every notebook's starter cell is its exercise's skeleton, word for word, in the notebook that the exercise names."""  # noqa: E501
    for path in sorted(SOURCES.glob("*.py")):
        for cell in re.split(r"^# %%.*\n", path.read_text(), flags=re.MULTILINE):
            if found := re.match(r"# exercise: ([a-z0-9-]+)\n", cell):
                one = task.find(found[1])
                assert cell.strip() == one.text("skeleton").strip(), f"{path.name}: {one.name}"
                assert path.name.startswith(one.notebook), f"{path.name}: {one.name}"


# --- the command ------------------------------------------------------------------------------


def test_list_says_the_state_of_each(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has a line for each exercise and the sum of the minutes."""
    make("one")
    make("two", core="false", notebook='"05"')
    progress.note("one", state=progress.LOADED)
    assert main(["exercises"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:6] == ["labkit's", "04", "one", "7", "min", "core"]
    assert lines[1][:6] == ["-", "05", "two", "7", "min", "optional"]
    assert " ".join(lines[2]) == "2 exercises, 14 minutes, 7 of them core"


def test_the_route_loads_what_does_not_fit(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A route has the core alone; what would end too late is loaded instead of solved."""
    monkeypatch.setattr(progress, "TREE", tmp_path)
    for name, keys in {"one": {}, "two": {"core": "false"}, "three": {"notebook": '"05"'}}.items():
        make(name, **keys)
    assert main(["exercises", "list", "--route", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["0:00", "04", "solve"], ["0:07", "05", "load"]]
    assert lines[2] == "0:07  in all 7 of 10 minutes; 1 exercise is loaded, not solved"
    assert main(["exercises", "list", "05", "--route", "10"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:3] == ["0:00", "05", "solve"]


def test_next_is_the_first_that_is_open(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """`next` goes through the core first, then the optional ones, then says that all is done."""
    make("one", core="false", order="1")
    make("two", order="2")
    for name in ("two", "one"):
        main(["exercises", "next"])
        assert capsys.readouterr().out.startswith(f"{name}: Shout\n")
        progress.note(name, state=progress.SOLVED)
    main(["exercises", "next"])
    assert capsys.readouterr().out == "nothing is left: everything is solved\n"


def test_reset_forgets_and_keeps_what_was_written(
    make: Make, learner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a reset an exercise is as on the first day; the learner's file lies in my/old."""
    make()
    progress.note("shout", state=progress.SOLVED, hints=2)
    (learner / "shout.py").write_text("mine")
    assert main(["exercises", "reset", "shout"]) == 0
    assert "is kept as" in capsys.readouterr().out
    assert progress.load()["exercises"] == {}
    assert [path.read_text() for path in learner.glob("*/shout_*.py")] == ["mine"]


def test_hint_solution_and_progress(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal gives the same hints and the same solution as the notebook, and counts them."""
    made = make()
    main(["exercises", "hint", "shout"])
    assert capsys.readouterr().out == "1. Look at str.\n"
    main(["exercises", "solution", "shout"])
    assert capsys.readouterr().out == made.text("reference")
    main(["exercises", "progress"])
    assert "0 wrong, 1 hints, solution seen" in capsys.readouterr().out


def test_notes_are_for_instructors(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`notes` prints a notebook's notes, its parts' minutes, and each exercise's; the route has the core parts too."""
    make(instructor='"Bring coffee."')
    (task.TASKS / "04.toml").write_text('instructor = "Start early."\n')
    source = tmp_path / "notebooks" / "source" / "04_made.py"
    source.parent.mkdir(parents=True)
    rows = ["part | minutes | ", "---|---|---", "One | 3 | core", "*exercise* shout | 7 | core", "Two | 1 | core",
            "Three | 4 | optional"]  # fmt: skip
    source.write_text("".join(f"# | {row} |\n" for row in rows))
    monkeypatch.setattr(progress, "TREE", tmp_path)
    assert main(["exercises", "notes", "04"]) == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("Start early.", "section     3 min  core      One", "Bring coffee."))
    main(["exercises", "list", "--route", "90"])
    assert capsys.readouterr().out.splitlines() == [
        "0:00  04  read     3 min  One",
        "0:03  04  solve    7 min  shout: Shout",
        "0:10  04  read     1 min  Two",
        "0:11  in all 11 of 90 minutes; time for every exercise",
    ]


def test_the_notebooks_tables_agree_with_the_exercises() -> None:
    """A table's row on an exercise says the minutes and the kind that the exercise says."""
    for notebook in parts.sources():
        known = [one for one in task.every() if one.notebook == notebook]
        for row in (row for row in parts.rows(notebook) if row.exercise):
            one = parts.match(row, known)
            assert one is not None, f"{notebook}: {row.title}"
            assert (row.minutes, row.core) == (one.minutes, one.core), f"{notebook}: {row.title}"


@pytest.mark.parametrize("words", [["juggle"], ["hint"], ["hint", "a", "b"], ["hint", "nothing"], ["notes", "99"],
                                   ["--verify", "nothing"], ["next", "x"]])  # fmt: skip
def test_bad_words_are_told(make: Make, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """What the command does not understand is an error with the next thing to try."""
    make()
    assert main(["exercises", *words]) == 125
    assert "next: " in capsys.readouterr().err


def test_every_word_has_its_line_of_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists all that there is."""
    with pytest.raises(SystemExit):
        main(["exercises", "--help"])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in commands.WHAT)
