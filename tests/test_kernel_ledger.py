"""The ledger: written before the resource is acquired, true after any crash, and it gives back only its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabError
from labkit.kernel import ledger, process
from labkit.kernel.ledger import RELEASE, Ledger


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state folders of its own."""
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))


# A step: record a path, or forget the n-th of those that are left.
STEPS = st.lists(st.one_of(st.text(min_size=1, max_size=12), st.integers(0, 5)), max_size=12)


@given(steps=STEPS, cut=st.integers(0, 10**6), more=st.text(max_size=5))
def test_a_torn_file_tells_a_past_truth(steps: list[str | int], cut: int, more: str) -> None:
    """Cut at any byte, it lists what was held after some step; and what is written behind the tear counts."""
    book = Ledger("torn")
    book.file.unlink(missing_ok=True)
    held: list[str] = []
    truths, files = [[]], [b""]
    for step in steps:
        if isinstance(step, str):
            book.record("file", path=step)
            held = [*held, step]
        elif held:
            entry = book.entries()[step % len(held)]
            # Without the last line's removal of the whole file: a torn file is what this is about.
            book._append({"gone": entry.number})
            held = [path for number, path in enumerate(held) if number != step % len(held)]
        else:
            continue
        truths.append(held)
        files.append(book.file.read_bytes())
    if not book.file.exists():
        return
    whole = files[-1]
    torn = whole[: cut % (len(whole) + 1)]
    book.file.write_bytes(torn)
    # As many steps as have their whole note on disk; only the line end behind it may be missing.
    done = max(number for number, data in enumerate(files) if len(data) <= len(torn) + 1 and whole.startswith(data))
    assert [entry.fields["path"] for entry in book.entries()] == truths[done]
    book.record("file", path=more)
    assert [entry.fields["path"] for entry in book.entries()] == [*truths[done], more]


def test_an_entry_is_on_disk_before_the_resource(tmp_path: Path) -> None:
    """record() returns with the line written; another process reads it."""
    Ledger("a").record("directory", path=str(tmp_path / "data/x"))
    assert [(e.kind, e.fields) for e in Ledger("a").entries()] == [("directory", {"path": str(tmp_path / "data/x")})]
    assert [book.owner for book in ledger.all_ledgers()] == ["a"]


def test_an_unknown_kind_is_refused() -> None:
    """Nothing can be recorded that nobody knows how to give back."""
    with pytest.raises(KeyError):
        Ledger("a").record("castle", name="x")
    assert Ledger("a").entries() == []


def test_what_is_gone_already_is_fine(tmp_path: Path) -> None:
    """Entries without a resource, of kinds that need no root, are released without an error; twice too."""
    book = Ledger("a")
    book.record("process", pid=2**22 - 1, start=1)
    book.record("directory", path=str(tmp_path / "data/none"))
    book.record("file", path=str(tmp_path / "none"))
    book.record("cgroup", path="/sys/fs/cgroup/none-such")
    book.record("sysctl", path="/proc/sys/none/such", before="0")
    assert len(book.release_all()) == 5
    assert book.entries() == [] and not book.file.exists() and book.release_all() == []


def test_only_the_very_process_is_killed() -> None:
    """A pid whose start time is another's is left alone; with the right one it gets SIGKILL."""
    with subprocess.Popen(["sleep", "60"]) as child:
        start = process.start_time(child.pid)
        assert start is not None
        Ledger("a").record("process", pid=child.pid, start=start - 1)
        Ledger("a").release_all()
        assert child.poll() is None
        Ledger("a").record("process", pid=child.pid, start=start)
        Ledger("a").release_all()
        assert child.wait(timeout=10) == -9


def test_processes_end_before_what_they_use(tmp_path: Path) -> None:
    """Processes oldest first, everything else in reverse order of acquisition."""
    book = Ledger("a")
    for kind in ("file", "process", "directory", "process"):
        book.record(kind, path=str(tmp_path / "data" / kind), pid=2**22 - 1, start=0)
    assert [entry.number for entry in book.release_all()] == [2, 4, 3, 1]


def test_a_folder_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    """Only below the kit's own two folders; the entry stays, and the rest is given back all the same."""
    theirs, ours = tmp_path / "theirs", tmp_path / "data/ours"
    for folder in (theirs, ours):
        folder.mkdir(parents=True)
    book = Ledger("a")
    book.record("directory", path=str(ours))
    book.record("directory", path=str(theirs))
    book.record("directory", path=str(tmp_path / "data"))
    with pytest.raises(LabError, match="will not remove"):
        book.release_all()
    assert theirs.is_dir() and not ours.exists() and (tmp_path / "data").is_dir()
    assert [entry.fields["path"] for entry in book.entries()] == [str(theirs), str(tmp_path / "data")]


def test_what_cannot_be_given_back_says_why(tmp_path: Path) -> None:
    """A LabError with the kernel's words, never a bare OSError; the entry is still there."""
    (tmp_path / "folder").mkdir()
    book = Ledger("a")
    book.record("file", path=str(tmp_path / "folder"))  # unlink(2) of a folder: EISDIR
    with pytest.raises(LabError, match="errno"):
        book.release_all()
    assert len(book.entries()) == 1


def test_a_tree_of_any_depth_is_given_back(tmp_path: Path) -> None:
    """1500 folders in each other, which a container may make: more than Python's stack has room for."""
    top = tmp_path / "data/deep"
    top.mkdir(parents=True)
    here = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    book = Ledger("a")
    book.record("directory", path=str(top))
    try:
        book.release_all()
        assert not top.exists()
    finally:
        subprocess.run(["rm", "-rf", top], check=True)  # pytest could not


def test_an_entry_that_nobody_understands_stops_no_other(tmp_path: Path) -> None:
    """One without its fields is told by its LabError and stays; what was recorded before it is given back."""
    (tmp_path / "mine").touch()
    book = Ledger("a")
    book.record("file", path=str(tmp_path / "mine"))
    book.record("cgroup", folder="renamed")
    with pytest.raises(LabError, match="cannot give back cgroup renamed") as caught:
        book.release_all()
    assert "KeyError" in caught.value.why
    assert not (tmp_path / "mine").exists() and [entry.kind for entry in book.entries()] == ["cgroup"]


def test_every_kind_names_its_own_fields() -> None:
    """The table has a function a kind, and each of them takes one argument."""
    assert all(function.__code__.co_argcount == 1 for function in RELEASE.values()) and len(RELEASE) == 13


def test_writers_at_once_lose_no_line() -> None:
    """Four processes append 25 entries each to one file; all are there (O_APPEND)."""
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            for count in range(25):
                Ledger("many")._append({"number": number * 100 + count, "kind": "file", "fields": {"path": "x"}})
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert len(Ledger("many").entries()) == 100
