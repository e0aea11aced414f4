"""What is kept of a learner: progress, the package of their own, predictions."""

from __future__ import annotations

import json
import linecache
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit.errors import BadInput, LabError, NotFound
from labkit.lessons import own, predictions, progress, task
from labkit.lessons.predictions import beliefs, measured, predict

if TYPE_CHECKING:
    from lessons_ground import Make

pytest_plugins = ["lessons_ground"]


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch, learner: Path) -> None:
    """A notebook's kernel that has just started."""
    monkeypatch.setattr(predictions, "_asked", {})


def cell(text: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a cell's text as IPython does: its lines are in linecache, under a name that is no file."""
    names = {"__name__": "__main__"} if names is None else names
    file = f"<cell {len(linecache.cache)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), names)
    return names


def test_a_solved_function_is_importable_with_all_that_it_used(make: Make, learner: Path) -> None:
    """The kept module has the cell's helpers, and the imports, constants and helpers of other cells."""
    names = cell(
        "import string as letters\nfrom pathlib import Path as P\nLIMIT = 3\n\ndef other(x):\n    return x + LIMIT"
    )
    cell("def helper(word):\n    return word.upper()\n\n@staticmethod\ndef answer(word):\n"
         "    return helper(word), P('/'), letters.digits, other(1)\n\nprint('ran')\n", names)  # fmt: skip
    own.save(make(), names["answer"])
    script = "from my.shout import answer; print(answer('a'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=learner.parent, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("('A', PosixPath('/'), '0123456789', 4)\n", "")


def test_what_cannot_be_kept_is_known(make: Make, learner: Path) -> None:
    """A name of another cell whose value cannot be written down is told by name, and no other one is."""
    names = cell("import os\nTHING = object()")
    cell("def answer(word, *more, key=None):\n    with open(__file__) as file:\n        for line in file:\n"
         "            print([x for x in line], lambda y: y, THING, os)\n", names)  # fmt: skip
    assert own.lacking(own.module(make(), names["answer"])) == ["THING"]


@pytest.mark.parametrize(
    "text",
    ["answer = lambda word: word", "import functools\nanswer = functools.partial(max, 'a')", "answer = max"],
)
def test_a_function_without_a_text_is_not_kept(make: Make, learner: Path, text: str) -> None:
    """A right answer that cannot be written down says what to do, and leaves no half of a file."""
    with pytest.raises(LabError, match="cannot be kept") as caught:
        own.save(make(), cell(text)["answer"])
    assert "def answer(...)" in str(caught.value)
    assert not (learner / "shout.py").exists()


def test_a_folder_that_cannot_be_written_stops_no_lesson(learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a place to keep progress, predictions and hints go on and say that nothing is kept."""
    learner.write_text("in the way")
    predict("a", "A?", mine=1)
    said = capsys.readouterr().out
    assert "your progress is not kept: " in said and "sealed: you said 1" in said


def test_a_function_of_another_name_is_kept_under_the_exercises(make: Make, learner: Path) -> None:
    """check(f) takes any function; later notebooks find it under the name that the exercise has."""
    own.save(make(), cell("def mine(word):\n    return word.upper()\n")["mine"])
    assert own.mine("shout")("a") == "A"


def test_whose_function_it_is_is_said(make: Make, learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mine() takes labkit's answer until there is one of the learner's, and says which."""
    made = make()
    assert own.mine("shout")("a") == "A"
    own.save(made, cell("def answer(word):\n    return 'mine'\n")["answer"])
    assert own.mine("shout")("a") == "mine"
    assert capsys.readouterr().out == "shout: labkit's (not solved yet)\nshout: yours\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [("def answer(", "SyntaxError"), ("x = 1", "defines no function answer()"), ("1 / 0", "ZeroDivisionError")],
)
def test_a_broken_own_module_is_told_and_not_used(
    make: Make, learner: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    """Where the learner's file does not work, labkit's answer is used and the reason is said."""
    progress.make(learner)
    (learner / "shout.py").write_text(text)
    assert make() and own.mine("shout")("a") == "A"
    said = capsys.readouterr().out
    assert said.startswith("shout: labkit's (") and why in said


def test_what_is_solved_again_keeps_the_older_answer(make: Make, learner: Path) -> None:
    """A second solution does not write over the first one."""
    made = make()
    for word in ("one", "two", "two"):
        own.save(made, cell(f"def answer(word):\n    return {word!r}\n")["answer"])
    assert "two" in (learner / "shout.py").read_text()
    assert ["one" in path.read_text() for path in (learner / "old").iterdir()] == [True]


def test_a_broken_progress_file_is_set_aside(learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress that cannot be read is told, kept under another name, and counted anew."""
    learner.mkdir()
    for text in ("{", "[]", '{"exercises": {"x": 1}, "predictions": {}}'):
        (learner / "progress.json").write_text(text)
        progress.note("shout", state=progress.TRIED)
        assert "set aside as progress.json.broken-" in capsys.readouterr().out
    assert [path.read_text()[0] for path in sorted(learner.glob("*.broken-*"))] == ["{", "[", "{"]
    assert progress.load()["exercises"]["shout"]["state"] == progress.TRIED


def test_two_notebooks_at_once_lose_nothing(learner: Path) -> None:
    """Changes of the progress made at the same time are all in the file afterwards."""

    def work() -> None:
        for _ in range(25):
            progress.count("shout", "attempts")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert json.loads((learner / "progress.json").read_text())["exercises"]["shout"]["attempts"] == 100
    assert sorted(path.name for path in learner.iterdir()) == [".lock", "__init__.py", "progress.json"]


def test_the_first_real_answer_is_sealed(learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`...` seals nothing, the first answer stays, and a later one is told so."""
    for answer in (..., "none of these", 2, "red"):
        predict("colour", "Which?", choices=["red", "blue"], mine=answer)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Which?", "  1. red", "  2. blue"]
    assert lines[3::4] == [
        "your answer: put it in place of `...`",
        "not sealed: 'none of these' is none of the choices",
        "sealed: you said blue",
        "sealed: you said blue; the first answer counts, not red",
    ]


@pytest.mark.parametrize("choice", ["2", 2, "-1", "0.5", " 7 "])
def test_a_bare_number_is_no_choice(learner: Path, capsys: pytest.CaptureFixture[str], choice: Any) -> None:
    """A choice that could be taken for a choice's number is refused by name, before anything is asked or kept."""
    with pytest.raises(BadInput, match=f"{choice}.*'layers'"):
        predict("layers", "How many?", choices=["none", choice], mine=2)
    assert capsys.readouterr().out == "" and not learner.exists()


@pytest.mark.parametrize("answer", [2, "4 layers"])
def test_a_number_with_a_word_is_a_choice(learner: Path, capsys: pytest.CaptureFixture[str], answer: Any) -> None:
    """Where choices hold numbers, `mine` is the choice's own number or its words, and never its first digit."""
    predict("layers", "How many?", choices=["2 layers", "4 layers"], mine=answer)
    assert "sealed: you said 4 layers" in capsys.readouterr().out


def test_a_measurement_stands_beside_the_answer(learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """measured() prints both, and beliefs() counts which held."""
    predict("a", "A?", choices=["red", "blue"], mine=1)
    predict("b", "B?", mine="yes")
    predict("c", "C?")
    capsys.readouterr()
    measured("a", "red")
    measured("b", "no")
    measured("c", 3)
    assert capsys.readouterr().out.splitlines() == [
        *("you said:  red", "measured:  red", "as you thought"),
        *("you said:  yes", "measured:  no", "not as you thought"),
        *("you said:  not predicted", "measured:  3"),
    ]
    beliefs("04")
    said = capsys.readouterr().out.splitlines()
    assert said[0:4:3] == ["= A?", "! B?"]
    assert said[-1] == "1 held, 1 did not, 1 not predicted or not measured"


def test_an_answer_after_the_measurement_is_no_prediction(learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who has seen the value cannot predict it any more."""
    predict("a", "A?")
    measured("a", 1)
    predict("a", "A?", mine=1)
    assert "does not count as a prediction" in capsys.readouterr().out
    beliefs("04")
    assert capsys.readouterr().out.endswith("0 held, 0 did not, 1 not predicted or not measured\n")


def test_beliefs_are_known_after_a_new_start(
    learner: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's beliefs are there when its kernel was started anew, and another notebook's are not among them."""
    for name, notebook in (("a", "04"), ("b", "05")):
        predict(name, f"{name}?", mine=1)
        beliefs(notebook)
        monkeypatch.setattr(predictions, "_asked", {})
    capsys.readouterr()
    beliefs("04")
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith("?")] == ["  a?"]


def test_measuring_what_was_not_asked_is_refused(learner: Path) -> None:
    """A name that no predict() has is an author's mistake, and said so."""
    with pytest.raises(BadInput, match="'nothing'"):
        measured("nothing", 1)


@pytest.mark.parametrize(
    ("keys", "why"),
    [({"minutes": '"5"'}, "minutes is no int"), ({"title": ""}, "it lacks title"), ({"red": "1"}, "red is no key"),
     ({"notebook": '"04" x'}, "Expected newline"), ({"core": "tru"}, "Invalid value")],
)  # fmt: skip
def test_a_wrong_description_is_named(make: Make, keys: dict[str, str], why: str) -> None:
    """A task.toml that cannot be used says which key is wrong."""
    with pytest.raises(LabError, match=why):
        make(**keys)


@pytest.mark.parametrize("name", ["nothing", "", "..", "../shout", "shout/"])
def test_an_exercise_that_is_not_there_is_not_found(make: Make, name: str) -> None:
    """A name that no exercise has, or that leads elsewhere, is refused."""
    make()
    with pytest.raises(NotFound):
        task.find(name)
