"""The comparison of notebooks: numbers may differ, relations may not; and no cell may hide."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nb import make
from tests.nb.relabel import Relabeller

TREE = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((TREE / "notebooks").glob("*.ipynb"))
IGNORED_BUDGET = 0  # cells kept from comparison; the number may only fall


def cell(source: str, *texts: str, number: int | None = 1) -> nbformat.NotebookNode:
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in texts]
    return nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=number)


def compare(folder: Path, *cells: nbformat.NotebookNode) -> subprocess.CompletedProcess[str]:
    """Run a notebook of these cells under the project's own plugin."""
    notebook = nbformat.v4.new_notebook(cells=list(cells), metadata={"kernelspec": make.KERNEL})
    nbformat.write(notebook, folder / "made.ipynb")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.nb.plugin", "--relational"]
    return subprocess.run([*words, "--rootdir", str(folder), "--nbval-current-env", str(folder / "made.ipynb")],
                          cwd=TREE, capture_output=True, text=True)  # fmt: skip


PIDS = "import os; print('pid', os.getpid()); print('parent of the child: pid', os.getpid())"


def test_other_numbers_with_the_same_relation_pass(tmp_path: Path) -> None:
    """A pid that was committed as 41 twice may be another number today, if it is the same one both times."""
    done = compare(tmp_path, cell(PIDS, "pid 41\nparent of the child: pid 41\n"))
    assert done.returncode == 0, done.stdout


def test_a_broken_relation_fails(tmp_path: Path) -> None:
    """Two pids that were different and are now one, or the other way round, fail."""
    assert compare(tmp_path, cell(PIDS, "pid 41\nparent of the child: pid 42\n")).returncode == 1
    two = "import os; print('pid', os.getpid()); print('parent of the child: pid', os.getppid())"
    done = compare(tmp_path, cell(two, "pid 41\nparent of the child: pid 41\n"))
    assert done.returncode == 1
    assert "Cell outputs differ" in done.stdout


def test_relations_hold_across_cells(tmp_path: Path) -> None:
    """A number in a later cell is compared with the same number in an earlier one."""
    first = cell("import os; print('pid', os.getpid())", "pid 41\n")
    good, bad = "pid 41\n", "pid 43\n"
    again = "print('pid', os.getpid())"
    assert compare(tmp_path, first, cell(again, good, number=2)).returncode == 0
    assert compare(tmp_path, first, cell(again, bad, number=2)).returncode == 1


def test_other_text_fails(tmp_path: Path) -> None:
    """What is no such number is compared letter by letter."""
    assert compare(tmp_path, cell("print('memory.max 268435456')", "memory.max 268435455\n")).returncode == 1


def test_a_cell_that_was_never_run_fails(tmp_path: Path) -> None:
    """nbval by itself lets a cell without outputs and without a number pass; here it does not."""
    done = compare(tmp_path, cell("print('unseen')", number=None))
    assert done.returncode == 1
    assert "never run" in done.stdout


def test_an_error_fails(tmp_path: Path) -> None:
    """A cell that raises fails, whatever was committed."""
    assert compare(tmp_path, cell("raise ValueError")).returncode == 1


def test_a_cable_named_with_digits_alone_is_an_id() -> None:
    """lk and ten digits is a cable's name; ten digits are a number."""
    assert Relabeller().text("lk5049199532 and 5049199532") == "<id 1>! and 5049199532"


def test_an_id_and_its_short_forms_are_one() -> None:
    """A container's 64 digits, the 12 that are shown, and its cable's name get one label."""
    full = "18e6e258dcaa" + "0f" * 26
    label = Relabeller()
    assert label.text(f"{full} {full[:12]}") == "<id 1> <id 1>"
    assert label.text(f"lk{full[:10]} ff{full[2:12]}") == "<id 1>! <id 2>"


@pytest.mark.parametrize(
    "text",
    ["memory.max 268435456", "cpu.max 100000 100000", "exit status 137", "127.0.0.1:8080", "pids.max 4096", "0.0.0.0"],
)
def test_what_must_not_vary_keeps_its_number(text: str) -> None:
    """Limits, statuses and ports are facts, not accidents."""
    assert Relabeller().text(text) == text


@given(st.lists(st.integers(1, 4_000_000), min_size=1, max_size=20))
def test_labels_are_equal_exactly_when_the_numbers_are(numbers: list[int]) -> None:
    """For any run of pids the labels repeat where the pids do, and only there."""
    relabeller = Relabeller()
    labels = [relabeller.text(f"pid {number}") for number in numbers]
    for one in range(len(numbers)):
        for other in range(len(numbers)):
            assert (labels[one] == labels[other]) == (numbers[one] == numbers[other])


def test_a_second_run_changes_no_line() -> None:
    """Outputs that say the same keep their committed form; others replace it."""
    old = nbformat.v4.new_notebook(cells=[cell("x", "pid 41\n")])
    new = nbformat.v4.new_notebook(cells=[cell("x", "pid 977\n")])
    make.settle(new, old)
    assert new.cells[0].outputs[0].text == "pid 41\n"
    changed = nbformat.v4.new_notebook(cells=[cell("x", "status 1\n")])
    make.settle(changed, old)
    assert changed.cells[0].outputs[0].text == "status 1\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_committed_cell_was_run(path: Path) -> None:
    """Each code cell has its number, in order, and none ends in an error."""
    cells = [one for one in json.loads(path.read_text())["cells"] if one["cell_type"] == "code"]
    assert [one["execution_count"] for one in cells] == list(range(1, len(cells) + 1))
    assert not [output for one in cells for output in one["outputs"] if output["output_type"] == "error"]


def test_no_more_cells_are_ignored_than_the_budget_allows() -> None:
    """Markers that keep a cell from comparison are counted, and the count may only fall."""
    marks = re.compile(r"NBVAL_(IGNORE_OUTPUT|SKIP)|nbval-(ignore-output|skip)")
    found = sum(len(marks.findall(path.read_text())) for path in NOTEBOOKS)
    assert NOTEBOOKS
    assert found == IGNORED_BUDGET


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_has_a_text_twin(path: Path) -> None:
    """An SVG comes with plain text that says something; a figure has its twin in print beside it or right behind."""
    cells = [one for one in json.loads(path.read_text())["cells"] if one["cell_type"] == "code"]
    kinds = {kind for one in cells for output in one["outputs"] for kind in output.get("data", {})}
    assert "image/svg+xml" in kinds
    for number, cell in enumerate(cells):
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                assert len("".join(data["text/plain"]).splitlines()) > 1
                assert not "".join(data["text/plain"]).startswith("<")
            if "image/png" in data:
                beside = [one["output_type"] for one in cells[number]["outputs"]]
                after = [text["output_type"] for later in cells[number + 1 : number + 2] for text in later["outputs"]]
                assert "stream" in [*beside, *after[:1]]


def test_the_readmes_picture_is_the_notebooks() -> None:
    """README.md shows what notebook 00 drew from the kernel, and nothing else."""
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    assert make.PICTURE.read_text() == make.sheet(notebook)
    assert str(make.PICTURE.relative_to(TREE)) in (TREE / "README.md").read_text()


def test_a_digest_that_begins_with_ten_digits_is_a_digest() -> None:
    """Short or whole, it is the same one; a number of ten digits stays a number."""
    one = Relabeller()
    assert one.text("sha256:0284994352f6") == "sha256:<id 1>" == one.text("sha256:0284994352f6" + "0" * 52)
    assert one.text("0123456789 bytes") == "0123456789 bytes"


def test_a_keyring_is_known_by_its_number_in_both_calls() -> None:
    """What keyctl answers, in one line or on a line of its own, and what it is given in hexadecimal."""
    one = Relabeller()
    assert one.text('keyctl(KEYCTL_JOIN_SESSION_KEYRING, "x", 0, 0, 0) = 187985913').endswith(", 0) = <key 1>")
    assert one.text("0, 0) = 187985913</text>") == "0, 0) = <key 1></text>"
    assert one.text("keyctl(KEYCTL_SETPERM, 0xb346ff9, KEY_POS_ALL)") == "keyctl(KEYCTL_SETPERM, <key 2>, KEY_POS_ALL)"


def test_an_answer_on_a_line_of_its_own_is_a_pid() -> None:
    """A picture breaks clone3 before its answer: it is the same process as in the whole line beside it."""
    assert (
        Relabeller().text("{...}, 0x58) = 8178</title>= 8178</text>")
        == "{...}, 0x58) = <pid 1></title>= <pid 1></text>"
    )
