"""A notebook's folder on the disk ends with it, and with a killed one at the next chance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.lessons import folder

PROGRAM = "from labkit.lessons import scratch; print(scratch('nb'), flush=True); {}"


def program(data: Path, then: str) -> tuple[int, Path]:
    """Run a notebook of one line; its exit status and its folder."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(then)], capture_output=True, text=True,
                          env={**os.environ, "LABKIT_DATA": str(data)})  # fmt: skip
    return done.returncode, Path(done.stdout.strip())


def test_the_folder_ends_with_its_process(tmp_path: Path) -> None:
    """What lies in it goes too."""
    status, made = program(tmp_path, "(scratch('nb') / 'x').write_text('x')")
    assert status == 0 and made.parent == tmp_path and list(tmp_path.iterdir()) == []


def test_a_killed_notebooks_folder_goes_at_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of a living process stays, whatever it is called."""
    status, left = program(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert status == -9 and left.is_dir()
    living = tmp_path / f"scratch-a-b-{os.getpid()}-x"
    living.mkdir()
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    made = folder.scratch("nb")
    assert not left.exists() and living.is_dir() and made.is_dir()
    folder._end(made, os.getpid())


def test_a_fork_of_the_notebook_removes_nothing(tmp_path: Path) -> None:
    """Only the process that asked for it gives it back."""
    assert (
        program(tmp_path, "import os; d = scratch('nb'); os.fork() or os._exit(0); os.wait(); assert d.is_dir()")[0]
        == 0
    )
