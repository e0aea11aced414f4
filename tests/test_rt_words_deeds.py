"""labkit-runtime's verbs on a container of which hardly anything is remembered: each answers in words, none fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labkit.kernel import process
from labkit.runtime.life import command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with one container, whose `create` was killed before it had written its state."""
    (tmp_path / "one").mkdir()
    return tmp_path


@pytest.mark.parametrize("words", ["-ef", "-o pid", "-o pid,comm --forest", ""])
def test_what_follows_the_id_is_passed_on_to_ps(root: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    """Its options are its own, and of what it prints the container's lines are shown: here the heading alone."""
    assert command.main(["--root", str(root), "ps", "one", *words.split()]) == 0
    heading, *rest = capsys.readouterr().out.splitlines()
    assert "PID" in heading.split() and rest == []


@pytest.mark.parametrize(
    ("words", "said"),
    [("-o comm", "no column PID"), ("--no-such-option", "ps --no-such-option failed\n  why:  error: unknown")],
)
def test_what_ps_cannot_print_is_said(root: Path, capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    """A failed ps shows its own words, and an output without pids what is missing."""
    assert command.main(["--root", str(root), "ps", "one", *words.split()]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status"),
    [(("state", "one"), 0), (("list",), 0), (("ps", "one"), 0), (("kill", "--all", "one", "KILL"), 0),
     (("kill", "one"), 1), (("start", "one"), 1), (("pause", "one"), 1), (("resume", "one"), 1),
     (("events", "--stats", "one"), 1), (("update", "--memory", "64m", "one"), 1), (("delete", "one"), 0)],
)  # fmt: skip
@pytest.mark.parametrize("text", ["", '{"id": "one", "status": "creating", "driver": "cgroupfs"}'])
def test_what_was_killed_early_meets_every_verb(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, text: str
) -> None:
    """Without a state, or with half of one, each verb does its work or refuses; none stumbles."""
    if text:
        (root / "one/state.json").write_text(text)
    assert command.main(["--root", str(root), *words]) == status
    assert "Error:" not in capsys.readouterr().err


def test_without_a_cgroup_there_is_nothing_to_tell_of(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """events of a container without a cgroup is refused, and prints no zeros."""
    me = {"pid": os.getpid(), "start": process.start_time(os.getpid())}
    (root / "one/state.json").write_text(json.dumps({"id": "one", "status": "running", "cgroup": "", **me}))
    assert command.main(["--root", str(root), "events", "--stats", "one"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "container one has no cgroup" in said.err


def test_what_nobody_reckoned_with_is_told_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its type and its place, with status 1, and no traceback; the engine finds it in the log."""
    (root / "one/state.json").write_text("[")
    assert command.main(["--root", str(root), "--log", str(root / "log"), "state", "one"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("labkit-runtime state: JSONDecodeError: ") and "  why:  met at decoder.py:" in said
    assert "JSONDecodeError" in (root / "log").read_text()


def test_a_log_that_cannot_be_written_hides_no_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What went wrong is told, and that the log has it not."""
    assert command.main(["--root", str(root), "--log", str(root / "none/log"), "state", "two"]) == 1
    said = capsys.readouterr().err
    assert "there is no container 'two'" in said and "cannot write --log" in said
