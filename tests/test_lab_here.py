"""`make lab WHERE=here` where it cannot be: refused by the doctor before anything is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
LABKIT = [sys.executable, "-P", "-m", "labkit"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=TREE, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def fit() -> bool:
    """Whether this very machine could be the lab: the doctor's status, which test_doctor.py holds to other oracles."""
    return run(*LABKIT, "doctor").returncode == 0


def test_a_machine_that_lacks_something_is_refused_with_the_doctors_list() -> None:
    """What is missing, what each costs and the way out; a fit machine gets silence instead."""
    done = run(*LABKIT, "lab", "here", "--port", "0", "--check")
    if fit():
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return
    assert done.returncode == 125
    assert "missing" in done.stdout and "remedy:" in done.stdout and "it lacks: " in done.stdout
    assert done.stderr.startswith("labkit lab: the lab cannot run directly on this Linux")
    assert "why:" in done.stderr and "next: make lab" in done.stderr


def test_nothing_is_installed_before_the_doctor_has_spoken() -> None:
    """In what make would do, the question comes before the packages of JupyterLab."""
    planned = run("make", "-n", "WHERE=here", "-W", "pyproject.toml", "lab").stdout
    assert 0 <= planned.index("lab here --port 8888 --check") < planned.index("[lab]")
