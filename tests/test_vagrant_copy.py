"""The two-way copying of vagrant/host/lab_copy.rb, without a machine: real tar, find and files.

Where no live folder can be had, this stands between a learner's work and its loss, so
its rules are tested one by one.  The machine's side is a folder here; vagrant's classes
are the real ones, and only the connection is replaced, by a shell (tests/vagrant/copying.rb).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent


class Lab:
    """A checkout, a machine's /lab, and the steps that vagrant would take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = folder / "checkout"
        self.guest = folder / "lab"
        self.host.mkdir()

    def step(self, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
        program = TREE / "tests" / "vagrant" / "copying.rb"
        words = ["ruby", str(program), what, str(self.folder)]
        return subprocess.run(words, text=True, capture_output=True, timeout=60, env={**os.environ, **environment})

    def copy(self) -> str:
        """What every start does: back, then forth."""
        done = self.step("copy")
        assert done.returncode == 0, done.stderr
        time.sleep(0.05)  # the machine's next write is later than its last stamp by more than a clock tick
        return done.stdout

    def kept(self) -> list[Path]:
        """The machine's versions of what both sides changed."""
        return [path for path in (self.host / ".vagrant" / "from-machine").rglob("*") if path.is_file()]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A checkout with two files, copied to a new machine."""
    assert shutil.which("vagrant"), "vagrant is missing: apt-get install vagrant"
    lab = Lab(tmp_path)
    (lab.host / "notebooks").mkdir()
    (lab.host / "notebooks" / "00.ipynb").write_text("as it came")
    (lab.host / "labkit.py").write_text("import os\n")
    lab.copy()
    return lab


def test_a_new_machine_gets_the_tree(lab: Lab) -> None:
    """After the first start the machine holds every file of the checkout."""
    assert (lab.guest / "notebooks" / "00.ipynb").read_text() == "as it came"
    assert (lab.guest / "labkit.py").read_text() == "import os\n"


def test_what_a_learner_writes_comes_back(lab: Lab) -> None:
    """A changed, a new and a deeply nested file are in the checkout after the machine was stopped."""
    (lab.guest / "notebooks" / "00.ipynb").write_text("my answer")
    (lab.guest / "notebooks" / "mine.ipynb").write_text("mine")
    deep = lab.guest / ("a" * 60) / ("b" * 60) / "c d.txt"
    deep.parent.mkdir(parents=True)
    deep.write_text("deep")
    assert lab.step("halt").returncode == 0
    assert (lab.host / "notebooks" / "00.ipynb").read_text() == "my answer"
    assert (lab.host / "notebooks" / "mine.ipynb").read_text() == "mine"
    assert (lab.host / deep.relative_to(lab.guest)).read_text() == "deep"


def test_a_file_with_an_old_date_comes_back(lab: Lab) -> None:
    """What was unpacked or copied in the machine with a date of long ago counts as written now."""
    (lab.guest / "old.txt").write_text("old")
    os.utime(lab.guest / "old.txt", (1_000_000_000, 1_000_000_000))
    lab.copy()
    assert (lab.host / "old.txt").read_text() == "old"


def test_the_checkouts_changes_reach_the_machine(lab: Lab) -> None:
    """A file edited, added or removed in the checkout is so in the machine after the next start."""
    (lab.host / "labkit.py").write_text("import sys\n")
    (lab.host / "new.py").write_text("new")
    (lab.host / "notebooks" / "00.ipynb").unlink()
    lab.copy()
    assert (lab.guest / "labkit.py").read_text() == "import sys\n"
    assert (lab.guest / "new.py").read_text() == "new"
    assert not (lab.guest / "notebooks" / "00.ipynb").exists()


def test_nothing_is_deleted_in_the_checkout(lab: Lab) -> None:
    """A file removed in the machine stays in the checkout."""
    (lab.guest / "labkit.py").unlink()
    lab.copy()
    assert (lab.host / "labkit.py").exists()


def test_a_file_changed_on_both_sides_is_kept_twice(lab: Lab) -> None:
    """The checkout's version stays and goes to the machine, and the machine's is kept and named."""
    (lab.host / "labkit.py").write_text("host's\n")
    (lab.guest / "labkit.py").write_text("machine's\n")
    said = lab.copy()
    assert (lab.host / "labkit.py").read_text() == "host's\n"
    assert (lab.guest / "labkit.py").read_text() == "host's\n"
    assert [path.read_text() for path in lab.kept()] == ["machine's\n"]
    assert str(lab.kept()[0]) in said


def test_a_second_copy_changes_nothing(lab: Lab) -> None:
    """Copying again with nothing written says nothing and keeps nothing twice."""
    (lab.guest / "mine.txt").write_text("mine")
    lab.copy()
    lab.copy()
    assert lab.copy() == ""
    assert lab.kept() == []


def test_a_broken_way_back_loses_nothing(lab: Lab) -> None:
    """When the download fails, the same files come back at the next try."""
    (lab.guest / "mine.txt").write_text("mine")
    assert lab.step("copy", BREAK="download").returncode != 0
    assert not (lab.host / "mine.txt").exists()
    lab.copy()
    assert (lab.host / "mine.txt").read_text() == "mine"


def test_a_save_during_the_copying_is_not_overwritten(lab: Lab) -> None:
    """What a learner saves between the two directions survives, though the checkout changed the same file."""
    (lab.host / "labkit.py").write_text("host's\n")
    assert lab.step("copy", SAVE_MEANWHILE="labkit.py").returncode == 0
    assert (lab.guest / "labkit.py").read_text() == "saved meanwhile\n"
    lab.copy()
    texts = {(lab.host / "labkit.py").read_text(), *(path.read_text() for path in lab.kept())}
    assert texts == {"host's\n", "saved meanwhile\n"}


def test_a_machine_with_work_inside_is_not_destroyed(lab: Lab) -> None:
    """A stopped machine whose writings have not come back refuses `destroy`; LAB_DISCARD=1 insists."""
    (lab.guest / "mine.txt").write_text("mine")
    refused = lab.step("destroy", MACHINE="off")
    assert refused.returncode != 0
    assert "vagrant up" in refused.stderr
    assert lab.step("destroy", MACHINE="off", LAB_DISCARD="1").returncode == 0


def test_a_machine_that_was_halted_may_be_destroyed(lab: Lab) -> None:
    """After `vagrant halt` everything is back, and nothing stands in the way."""
    assert lab.step("halt").returncode == 0
    assert lab.step("destroy", MACHINE="off").returncode == 0


def test_nothing_lands_outside_the_checkout(lab: Lab) -> None:
    """An archive whose paths lead outside, as a broken machine may send, writes nothing there."""
    assert lab.step("copy", EVIL="1").returncode == 0
    assert not (lab.folder / "evil.txt").exists()
    assert (lab.host / "good.txt").exists()


def test_each_sides_own_folders_stay_there(lab: Lab) -> None:
    """Caches, environments and git's folder are not copied in either direction."""
    for side in (lab.host, lab.guest):
        (side / "__pycache__").mkdir()
        (side / "__pycache__" / f"{side.name}.pyc").write_text("x")
    lab.copy()
    assert [path.name for path in (lab.host / "__pycache__").iterdir()] == ["checkout.pyc"]
    assert [path.name for path in (lab.guest / "__pycache__").iterdir()] == ["lab.pyc"]
