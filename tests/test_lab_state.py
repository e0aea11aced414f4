"""What is written of a running lab: the record, the lock, and who a process id belongs to."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.lab import state
from labkit.lab.state import Machine

TREE = Path(__file__).resolve().parent.parent
TOKEN = "not-so-secret"
# Each round: hold the lock, be alone in there, and leave nothing behind, so that the lock's file goes too.
CONTENDER = """
import os, sys, time
from labkit.lab import state
inside = sys.argv[1]
for _ in range(60):
    with state.locked():
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        state.folder().mkdir(exist_ok=True)
        time.sleep(0.001)
        state.forget()
        os.unlink(inside)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own: the real lab is not seen."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("LAB_NAME", raising=False)
    return tmp_path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a machine."""
    with subprocess.Popen(["sleep", "300"]) as child:
        yield child
        child.kill()


def record(pid: int, started: int, image: Path, port: int = 1) -> Machine:
    state.folder().mkdir(parents=True, exist_ok=True)
    machine = Machine(pid, started, 2, port, 3, TOKEN, str(image), "learner", "tcg", "a test", 512, time.time())
    state.save(machine)
    return machine


def test_the_record_comes_back_as_it_was(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """What save() wrote, load() reads."""
    machine = record(process.pid, state.start_time(process.pid) or 0, tmp_path)
    assert state.load() == machine == state.running()


def test_nobody_else_may_read_the_token(tmp_path: Path) -> None:
    """The record's mode is 0600."""
    record(1, 1, tmp_path)
    assert (state.folder() / "lab.json").stat().st_mode & 0o777 == 0o600


def test_a_dead_machine_does_not_run(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A record whose process is gone is still a record, and no running lab."""
    record(process.pid, state.start_time(process.pid) or 0, tmp_path)
    process.kill()
    process.wait()
    assert state.load() is not None
    assert state.running() is None


def test_a_zombie_does_not_run(process: subprocess.Popen[bytes]) -> None:
    """A process that only waits to be reaped has no start time."""
    os.kill(process.pid, 9)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert state.start_time(process.pid) is None


def test_a_pid_that_was_given_again_is_another_process(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """The same number with another start time is not the machine."""
    record(process.pid, (state.start_time(process.pid) or 0) - 1, tmp_path)
    assert state.running() is None


def test_start_time_is_what_the_kernel_says(process: subprocess.Popen[bytes]) -> None:
    """Field 22, though the name in field 2 may hold spaces and parentheses."""
    said = subprocess.run(["ps", "-o", "etimes=", "-p", str(process.pid)], capture_output=True, text=True).stdout
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    age = uptime - (state.start_time(process.pid) or 0) / os.sysconf("SC_CLK_TCK")
    assert abs(age - int(said)) < 3


def test_a_damaged_record_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """Not a traceback: the file's name, and `make down`."""
    record(1, 1, tmp_path)
    (state.folder() / "lab.json").write_text('{"pid": 1')
    with pytest.raises(LabError, match=r"lab\.json.*") as raised:
        state.load()
    assert "make down" in str(raised.value)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAB_NAME is letters, digits and dashes."""
    monkeypatch.setenv("LAB_NAME", name)
    with pytest.raises(LabError, match="LAB_NAME"):
        state.folder()


def test_each_name_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines of one checkout never meet."""
    first = state.folder()
    monkeypatch.setenv("LAB_NAME", "other")
    assert state.folder() != first


def test_forgetting_leaves_nothing(tmp_path: Path) -> None:
    """The folder, the mark on the image, the lock and the folder above them: all gone."""
    image = tmp_path / "image"
    image.mkdir()
    with state.locked():
        machine = record(1, 1, image)
        state.in_use(Path(machine.image)).touch()
        state.forget()
        assert state.folder().with_suffix(".lock").exists()  # still held
    assert list(image.iterdir()) == []
    assert not (tmp_path / "state" / "labkit").exists()


def test_the_lock_stays_while_there_is_a_lab(tmp_path: Path) -> None:
    """With a machine on record, the lock's file is left for the next."""
    with state.locked():
        record(1, 1, tmp_path)
    assert state.folder().with_suffix(".lock").exists()


def test_two_never_hold_the_lock(tmp_path: Path) -> None:
    """Three processes that take the lock and remove its file, over and over, are never in there together."""
    words = [sys.executable, "-c", CONTENDER, str(tmp_path / "inside")]
    children = [subprocess.Popen(words, cwd=TREE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [child.communicate(timeout=60)[1] for child in children] == ["", "", ""]
    assert [child.returncode for child in children] == [0, 0, 0]


def test_an_error_inside_frees_the_lock() -> None:
    """An exception goes through, and the next gets the lock."""
    with pytest.raises(FileNotFoundError), state.locked():
        raise FileNotFoundError
    with state.locked():
        pass


class Jupyter(http.server.BaseHTTPRequestHandler):
    """Answers as JupyterLab's /api/status does."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == f"token {TOKEN}"
        self.send_response(200 if known and self.path == "/api/status" else 403)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Silence."""


def test_starts_find_the_running_lab(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Two `labkit lab up` at once with a machine on record print its address, and start nothing."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Jupyter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        record(process.pid, state.start_time(process.pid) or 0, tmp_path, port=int(port))
        before = (state.folder() / "lab.json").read_bytes()
        words = [sys.executable, "-m", "labkit", "lab", "up"]
        children = [subprocess.Popen(words, cwd=TREE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [child.communicate(timeout=60)[0] for child in children]
        server.shutdown()
    assert [child.returncode for child in children] == [0, 0]
    assert said[0] == said[1]
    assert f"http://127.0.0.1:{port}/lab" in said[0] and f"token={TOKEN}" in said[0]
    assert (state.folder() / "lab.json").read_bytes() == before


def test_status_does_not_tell_the_token(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """`labkit guest status --json` has everything but the token, and says that JupyterLab does not answer: 1."""
    record(process.pid, state.start_time(process.pid) or 0, tmp_path)
    words = [sys.executable, "-m", "labkit", "guest", "status", "--json"]
    done = subprocess.run(words, cwd=TREE, capture_output=True, text=True)
    assert done.returncode == 1
    assert json.loads(done.stdout)["pid"] == process.pid
    assert TOKEN not in done.stdout


@pytest.mark.parametrize("words", [["exec", "--", "true"], ["log"], ["status"], ["copy", "guest:/etc/hosts", "x"]])
def test_without_a_lab_each_verb_says_so(words: list[str], tmp_path: Path) -> None:
    """`labkit guest VERB` without a machine: that there is none, `make lab`, and not 0."""
    done = subprocess.run(
        [sys.executable, "-m", "labkit", "guest", *words], cwd=TREE, capture_output=True, text=True,
        env={**os.environ, "LAB_NAME": "none-such"},
    )  # fmt: skip
    assert done.returncode not in (0, 2)
    assert "the lab is not up" in done.stderr and "make lab" in done.stderr


def test_down_without_a_lab_is_fine() -> None:
    """`labkit lab down` when there is nothing: says so, status 0, and leaves nothing."""
    done = subprocess.run([sys.executable, "-m", "labkit", "lab", "down"], cwd=TREE, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "no lab of this checkout is running\n")
    assert not state.folder().parent.exists()
