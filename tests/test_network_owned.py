"""Servers that outlive their starter: nothing stays open, or runs, when the start fails."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.kernel.ledger import Ledger
from labkit.network.owned import start_owned

MODULE = "labkit.network.forward"


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket to hand on, and state folders of the test's own."""
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def start(listener: socket.socket, ledger: Ledger) -> None:
    """A forwarder that leads to a port where nobody listens."""
    start_owned(MODULE, [f"tcp:{listener.fileno()}:1:127.0.0.1"], [listener], ledger, "forwarder")


def opened() -> list[str]:
    """The files that this process has open."""
    return sorted(os.listdir("/proc/self/fd"))


def test_a_program_that_cannot_be_started_leaves_no_pipe(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter is not there: LabError, no entry, and both ends of the lifeline are closed."""
    ledger, before = Ledger("c1" * 32), opened()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(LabError, match=f"cannot start {MODULE}"):
        start(listener, ledger)
    assert opened() == before and ledger.entries() == []


def test_a_server_that_cannot_be_written_down_ends(listener: socket.socket, tmp_path: Path) -> None:
    """The ledger's folder cannot be made: LabError, nothing stays open, and the port becomes free."""
    (tmp_path / "run").write_text("a file where a folder should be")
    before, place = opened(), listener.getsockname()
    with pytest.raises(LabError, match=f"cannot start {MODULE}"):
        start(listener, Ledger("c1" * 32))
    assert opened() == before
    listener.close()
    deadline = time.monotonic() + 20  # it has to start before it can end
    while True:
        try:
            socket.create_server(place).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "the server has the port still"
            time.sleep(0.02)
