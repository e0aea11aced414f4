"""Warm starts: commands of labkit-runtime by a helper that is there already, the same as by a new program."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rt_ground import SLEEP, Ground, ground, until

from labkit.errors import LabError
from labkit.runtime.warm import Helper

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]


@pytest.fixture
def runtime() -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    with ground() as made:
        yield made


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """One for all: it is there."""
    with Helper() as made:
        yield made


def call(helper: Helper, runtime: Ground, *words: str) -> tuple[int, str]:
    """What the helper's command ended with and printed."""
    runtime.write()
    with (runtime.folder / "warm").open("w+") as said:
        status = helper("--root", f"{runtime.folder}/state", *words, cwd=runtime.folder,
                        streams=(0, said.fileno(), said.fileno()))  # fmt: skip
    return status, (runtime.folder / "warm").read_text()


def test_a_warm_run_is_a_cold_one(runtime: Ground, helper: Helper) -> None:
    """Status, output, and what the program finds: descriptors, signals, limits, environment."""
    script = (
        "ls /proc/self/fd | wc -l; env | sort; grep -E '^(Sig(Ign|Blk|Cgt)|Cap|Uid|Umask)' /proc/self/status; exit 7"
    )
    runtime.process("/usr/bin/sh", "-c", script)
    cold = runtime("run", "one")
    assert call(helper, runtime, "run", "one") == (7, cold.stdout) and cold.returncode == 7
    assert runtime.left() == []


def test_a_whole_life(runtime: Ground, helper: Helper) -> None:
    """create, start, exec (which starts itself again, sealed), kill, delete: by the helper; state by a new program."""
    runtime.process(*SLEEP)
    assert call(helper, runtime, "create", "one")[0] == 0
    assert runtime.state("one")["status"] == "created"
    assert call(helper, runtime, "start", "one")[0] == 0
    assert call(helper, runtime, "exec", "one", "/usr/bin/sh", "-c", "echo $$; exit 4")[0] == 4
    assert call(helper, runtime, "kill", "one", "KILL")[0] == 0
    until(lambda: runtime.state("one")["status"] == "stopped")
    assert call(helper, runtime, "delete", "one")[0] == 0 and runtime.left() == []


def test_an_error_is_told_as_ever(runtime: Ground, helper: Helper) -> None:
    """On standard error, with the status; and the helper goes on."""
    status, said = call(helper, runtime, "start", "nobody")
    assert status == 1 and "there is no container 'nobody'" in said
    assert call(helper, runtime, "features")[0] == 0


def test_several_at_once(runtime: Ground, helper: Helper) -> None:
    """One that takes its time does not keep others waiting."""
    runtime.process("/usr/bin/sleep", "1")
    runtime.write()
    words = ["--root", f"{runtime.folder}/state", "run"]
    running = [helper.start(*words, f"box{number}", cwd=runtime.folder) for number in range(5)]
    until(lambda: len(runtime.left()) == 5)
    assert [one.wait() for one in running] == [0] * 5 and runtime.left() == []


def test_from_a_process_with_threads(runtime: Ground, helper: Helper) -> None:
    """A notebook has a dozen: none of them matters."""
    runtime.process("/usr/bin/true")
    ended = threading.Event()
    threads = [threading.Thread(target=ended.wait) for _ in range(8)]
    for one in threads:
        one.start()
    try:
        assert call(helper, runtime, "run", "one")[0] == 0
    finally:
        ended.set()
        for one in threads:
            one.join()


def test_the_helper_holds_nothing_of_the_callers(runtime: Ground) -> None:
    """Its streams, its line and Python's own files: no descriptor of the process that made it."""
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        with Helper() as made:
            open_files = [os.readlink(path) for path in Path(f"/proc/{made.pid}/fd").iterdir()]
            status = Path(f"/proc/{made.pid}/status").read_text()
    finally:
        os.close(secret)
    assert "/etc/hostname" not in open_files and len(open_files) <= 5
    assert "Threads:\t1\n" in status


def test_it_ends_with_its_caller_or_by_itself(runtime: Ground) -> None:
    """A helper whose caller is gone ends; a caller whose helper was killed is told."""
    made = Helper()
    os.kill(made.pid, signal.SIGKILL)
    runtime.process("/usr/bin/true")
    runtime.write()
    with pytest.raises(LabError, match="helper"):
        made("--root", f"{runtime.folder}/state", "run", "one", cwd=runtime.folder)
    made.close()
    other = Helper()
    pid = other.pid
    other.close()
    assert not Path(f"/proc/{pid}").exists()
