"""Does the lab's own registry end with the command that serves it, however that ends?"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image.making import small_layout

Served = tuple[subprocess.Popen[str], int, int]


def until(question: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < end:
        time.sleep(0.02)
    return answer


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def child_of(pid: int) -> int:
    """The pid of crane: the one child of `labkit registry`."""
    (found,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(found)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """(`labkit registry`, the pid of its crane, its port), an image pushed into it."""
    small_layout(tmp_path / "layouts/small")
    words = [sys.executable, "-m", "labkit", "registry", "--address", "127.0.0.1:0", str(tmp_path / "layouts")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as command:
        try:
            assert command.stdout is not None
            port = int(command.stdout.readline().partition(";")[0].rpartition(":")[2])
            assert listens(port)
            yield command, child_of(command.pid), port
        finally:
            command.kill()


def _gone(served: Served) -> bool:
    _, crane, port = served
    return until(lambda: not listens(port)) and until(lambda: not Path(f"/proc/{crane}").exists())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_whole(served: Served, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end the command well, and crane and its port are gone by then."""
    served[0].send_signal(number)
    assert served[0].wait(10) == 0
    assert not listens(served[2]) and not Path(f"/proc/{served[1]}").exists()


def test_killed_it_takes_crane_along(served: Served) -> None:
    """Nobody cleans up after SIGKILL; the kernel ends crane."""
    served[0].kill()
    assert served[0].wait(10) == -signal.SIGKILL
    assert _gone(served)


def test_a_signal_that_comes_early_ends_it_whole(tmp_path: Path) -> None:
    """SIGTERM while layouts are still being pushed: no crane is left."""
    (tmp_path / "bin").mkdir()
    # A push that does not end; everything else is the real program's.
    slow = f'#!/bin/sh\n[ "$1" != push ] || {{ echo $PPID > {tmp_path}/pushing; exec sleep 100; }}\nexec "$REAL" "$@"\n'
    (tmp_path / "bin/crane").write_text(slow)
    (tmp_path / "bin/crane").chmod(0o755)
    small_layout(tmp_path / "layouts/small")
    words = ["sh", "-c", 'REAL=$(command -v crane) PATH=$1:$PATH exec "$2" -m labkit registry --address 127.0.0.1:0 $3',
             "sh", str(tmp_path / "bin"), sys.executable, str(tmp_path / "layouts")]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE) as command:
        try:
            assert until((tmp_path / "pushing").exists)
            children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
            assert len(children) == 2
            command.terminate()
            assert command.wait(10) == 130
            assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        finally:
            command.kill()
