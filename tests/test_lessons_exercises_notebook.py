"""Exercises in a real notebook's kernel, and the notebooks' own runs: solved, without progress, leaving nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from labkit.lessons import predict
from tests.nb import make as notebooks
from tests.nb.relabel import WIDGET, Relabeller

if TYPE_CHECKING:
    from lessons_ground import Make

pytest_plugins = ["lessons_ground"]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
CHECK = 'exercise("shout").check(answer)'


def ran(tmp_path: Path, *cells: str, solved: bool = False) -> Any:
    """A notebook of these cells, run to its end as `make notebooks` does; its course has this test's exercises."""
    where = "from pathlib import Path\nfrom labkit.lessons import task, exercise, mine\n"
    where += f"task.TASKS = Path({str(tmp_path / 'tasks')!r})"
    code = [nbformat.v4.new_code_cell(text) for text in (where, *cells)]
    notebook = nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": notebooks.KERNEL})
    if solved:
        notebooks.solve(notebook)
    source = tmp_path / "course" / "source" / "made.py"
    source.parent.mkdir(parents=True, exist_ok=True)
    notebooks.run(notebook, source)
    return notebook


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_a_cell_is_judged_kept_and_used_later(make: Make, tmp_path: Path) -> None:
    """The way of a learner: the starter cell, their own, labkit's answer by load(); each is told apart."""
    skeleton = make().text("skeleton")
    helper = "BIG = str.upper\ndef helper(word):\n    return BIG(word)"
    own = "# mine\ndef answer(word):\n    return helper(word)"
    book = ran(tmp_path, skeleton, CHECK, helper, own, CHECK, "print(mine('shout')('abc'))",
               'exercise("shout").load()', "exercise('shout').check()", "print(answer('abc'))")  # fmt: skip
    said = [printed(cell) for cell in book.cells]
    assert said[2].startswith("shout: not attempted\n")
    assert said[5].startswith("shout: right\n  kept as ")
    assert said[6] == "shout: yours\nABC\n"
    assert said[7] == "shout: answer() is labkit's from here on\n"
    assert "it is not kept as yours" in said[8]
    assert said[9] == "ABC\n"


def test_the_buttons_click_loads_the_answer(make: Make, tmp_path: Path) -> None:
    """A click defines labkit's answer, marks it in the progress, and the button says so."""
    click = """
    from ipywidgets.widgets import widget
    from labkit.lessons import progress
    button = [one for one in widget._instances.values() if type(one).__name__ == "Button"][-1]
    button.click()
    print(button.description, button.disabled, answer("abc"), progress.load()["exercises"]["shout"]["state"])
    """
    book = ran(tmp_path, make().text("skeleton"), CHECK, textwrap.dedent(click))
    assert printed(book.cells[3]) == "answer() is labkit's from here on True ABC labkit's\n"


def test_a_widget_leaves_its_text_alone(make: Make, tmp_path: Path) -> None:
    """What is committed and compared is the button's text; its model's random id is in neither."""
    book = ran(tmp_path, make().text("skeleton"), CHECK)
    shown = next(output for output in book.cells[2].outputs if output.output_type == "display_data")
    text = 'to go on with labkit\'s answer: exercise("shout").load()'
    assert set(shown.data) == {WIDGET, "text/plain"} and shown.data["text/plain"] == text
    assert Relabeller().outputs([shown])[0]["data"] == {"text/plain": text}
    notebooks.normalise(book)
    assert "model_id" not in nbformat.writes(book) and text in nbformat.writes(book).replace('\\"', '"')


def test_an_unsolved_notebook_says_the_same_again(make: Make, tmp_path: Path, learner: Path) -> None:
    """Under strict nbval the unsolved state compares equal, whatever the learner has answered and solved meanwhile."""
    ask = "from labkit.lessons import beliefs, measured, predict\npredict('a', 'A?', choices=['u', 'v'], mine=...)"
    book = ran(tmp_path, make().text("skeleton"), CHECK, "f = mine('shout')", ask, "measured('a', 'v')\nbeliefs('04')")
    notebooks.normalise(book)
    nbformat.write(book, tmp_path / "made.ipynb")
    predict("a", "A?", choices=["u", "v"], mine=1)
    (learner / "shout.py").write_text("def answer(word):\n    return 'theirs'\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.nb.plugin", "--relational"]
    words += ["--rootdir", str(tmp_path), "--nbval-current-env", str(tmp_path / "made.ipynb")]
    done = subprocess.run(words, cwd=notebooks.TREE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_a_solved_run_has_the_references(make: Make, tmp_path: Path) -> None:
    """In a solved run each starter cell holds its reference, and the check says right."""
    book = ran(tmp_path, make().text("skeleton"), CHECK, solved=True)
    assert "return word.upper()" in book.cells[1].source
    assert printed(book.cells[2]).startswith("shout: right\n")


def test_a_solved_run_with_an_error_fails(make: Make, tmp_path: Path) -> None:
    """An exception in any cell ends the run."""
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        ran(tmp_path, make().text("skeleton"), "answer('a') and 1 / 0", solved=True)


def test_a_run_sees_no_learners_progress(make: Make, tmp_path: Path, learner: Path) -> None:
    """A notebook's run neither reads nor changes what a learner has done."""
    make()
    learner.mkdir()
    (learner / "shout.py").write_text("def answer(word):\n    return 'theirs'\n")
    book = ran(tmp_path, "print(mine('shout')('a'))")
    assert printed(book.cells[1]) == "shout: labkit's (not solved yet)\nA\n"
    assert [path.name for path in learner.iterdir()] == ["shout.py"]
    assert os.environ["LABKIT_PROGRESS"] == str(learner)


def test_what_a_notebook_leaves_behind_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in namespaces of its own that outlives the run is named."""
    monkeypatch.setattr(notebooks, "SETTLING", 0.5)
    words = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "1000"]
    with pytest.raises(SystemExit) as caught, notebooks.nothing_left("made.py"):
        left = subprocess.Popen(words)
        time.sleep(0.5)
    left.kill()
    left.wait()
    while subprocess.run(["pgrep", "-P", str(left.pid)], capture_output=True).stdout:
        time.sleep(0.01)
    assert "made.py does not leave the machine as it found it" in str(caught.value)
    assert "+ process sleep" in str(caught.value)


def test_lists_do_without_the_childs_machinery() -> None:
    """`labkit exercises list` imports neither the child nor what it needs."""
    script = "import sys; from labkit.cli import main; main(['exercises']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"labkit.lessons.child", "cloudpickle", "IPython"} & set(done.stdout.splitlines()[-1].split())
