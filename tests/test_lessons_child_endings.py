"""The stage child's bad input: functions that raise, hang, exit, fork, close, flood; and notebooks that die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime_ground import until

from labkit.errors import LabError, Refused
from labkit.kernel.ledger import Ledger, all_ledgers
from labkit.lessons import Child, Died, Hung, hang, tree
from labkit.lessons.printed import LIMIT


def gone(pid: int) -> bool:
    """Whether that process has ended."""
    return tree.describe(pid) is None


def test_a_hang_says_where_and_is_ended() -> None:
    """The stage, the line of the function, the system call; nothing of it runs on."""

    def wait() -> None:
        subprocess.Popen(["sleep", "1000"])
        os.read(os.pipe()[0], 1)  # nobody writes

    began = time.monotonic()
    with Child("hang") as one, pytest.raises(Hung, match="'waiting'") as caught:
        one.do(wait, stage="waiting", limit=0.5)
    assert time.monotonic() - began < 8
    assert caught.value.stage == "waiting" and caught.value.syscall == "read"
    assert "os.read(os.pipe()[0], 1)  # nobody writes" in caught.value.line
    assert one.closed and gone(one.pid) and [left.name for left in one.left] == ["sleep"]
    with pytest.raises(Refused, match="no further stage"):
        one.do(os.getpid)


def test_a_loop_is_in_no_system_call() -> None:
    """It computes."""

    def spin() -> None:
        while True:
            pass

    with Child("spin") as one, pytest.raises(Hung, match="computes") as caught:
        one.do(spin, limit=0.3)
    assert caught.value.syscall == "" and "of spin()" in caught.value.line


def test_a_hang_in_no_function_of_python_has_no_line() -> None:
    """Only the stage and the system call are known; the child's own lines are not shown."""
    with Child("builtin") as one, pytest.raises(Hung, match="clock_nanosleep") as caught:
        one.do(time.sleep, 1000, limit=0.3)
    assert caught.value.line == "" and "labkit" not in str(caught.value)


def test_a_program_that_prints_without_end_is_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """The limit of time holds whatever arrives meanwhile, and so does the limit of what is shown."""
    with Child("flood") as one, pytest.raises(Hung):
        one.do(os.system, "yes", limit=0.5)
    said = capsys.readouterr().out
    assert len(said) < LIMIT + 500 and re.search(r"cut after 1048576 bytes: \d+ more", said)


def test_a_hang_that_blocks_all_signals_is_ended_too() -> None:
    """Its line cannot be asked for, its system call can."""

    def deaf() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(1000)

    with Child("deaf") as one, pytest.raises(Hung, match="blocks signals") as caught:
        one.do(deaf, limit=0.3)
    assert caught.value.syscall == "clock_nanosleep" and gone(one.pid)


@pytest.mark.parametrize(
    ("end", "code", "number", "words"),
    [
        (lambda: sys.exit(3), 3, None, "status 3"),
        (lambda: os._exit(4), 4, None, "status 4"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), None, signal.SIGKILL, "SIGKILL"),
        (lambda: os.abort(), None, signal.SIGABRT, "SIGABRT"),
        (lambda: os.closerange(3, 5000), None, signal.SIGRTMAX - 1, "closed the line"),
        (lambda: os.closerange(0, 5000), None, signal.SIGRTMAX - 1, "closed the line"),
    ],
)  # fmt: skip
def test_an_end_is_told_apart(end: Callable[[], None], code: int | None, number: int | None, words: str) -> None:
    """Status, signal, or a line that the function closed; and the stage."""
    with Child("end") as one, pytest.raises(Died, match=words) as caught:
        one.do(end, stage="ending")
    assert (caught.value.stage, caught.value.code, caught.value.signal) == ("ending", code, number)
    assert one.closed


def test_a_message_of_sys_exit_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """As Python shows it."""
    with Child("message") as one, pytest.raises(Died, match="status 1"):
        one.do(sys.exit, "enough of this")
    assert "enough of this" in capsys.readouterr().out


def test_closed_standard_streams_are_there_again_in_the_next_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """Said in a line; reading gives the end, printing prints."""

    def close() -> None:
        os.close(0)
        sys.stdout.close()
        os.close(1)

    with Child("stdin") as one:
        one.do(close, stage="closing")
        said = capsys.readouterr().out
        assert "'closing' closed its standard input (descriptor 0)" in said and "standard output" in said
        assert one.do(lambda: os.read(0, 1)) == b""
        one.do(print, "back")
    assert capsys.readouterr().out == "back\n"


def test_processes_left_behind_are_ended_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that has left its session and its parent too; one that was spawned is not counted."""

    def daemonise() -> int:
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writing, str(os.getpid()).encode())
                os.execvp("sleep", ["sleep", "1001"])
            os._exit(0)
        os.wait()
        return int(os.read(reading, 20))

    with Child("left") as one:
        wanted = one.spawn("sleep", "1000")
        pid = one.do(daemonise)
        assert not gone(pid) and pid not in tree.below(one.pid)  # the guardian has it now
    assert gone(pid) and gone(wanted) and [left.pid for left in one.left] == [pid]
    assert capsys.readouterr().out == "child 'left': its stages left 1 process behind (sleep); ended\n"


def test_a_stage_that_forks_without_end_is_ended() -> None:
    """Processes that go on forking are stopped before they are killed, so that none gets away."""

    def bomb() -> None:
        for _ in range(4):
            os.fork()
        while True:
            if os.fork() == 0:
                time.sleep(0.05)
            else:
                os.wait()

    with Child("bomb") as one, pytest.raises(Hung):
        one.do(bomb, limit=0.5)
    assert len(one.left) >= 15 and all(gone(left.pid) for left in one.left)


@pytest.mark.parametrize(("answer", "status"), [("return", 0), ("raise", 1), ("exit", 5)])
def test_a_fork_that_returns_from_the_function_ends_there(
    answer: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It neither answers in the child's place nor takes the next stage; what it raises is printed."""

    def forked() -> str:
        pid = os.fork()
        if pid == 0:
            if answer == "raise":
                raise ValueError("in the fork")
            if answer == "exit":
                sys.exit(5)
            return "from the fork"
        return f"from the child, fork ended with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"

    with Child("stray") as one:
        assert one.do(forked) == f"from the child, fork ended with {status}"
        assert one.do(os.getpid) == one.pid
        assert ("ValueError: in the fork" in capsys.readouterr().out) == (answer == "raise")
    assert one.left == []


def test_a_stage_that_kills_or_stops_the_guardian_leaves_nothing() -> None:
    """Killed, it is noticed and the rest is found by its mark; stopped, it is woken."""

    def kill() -> None:
        subprocess.Popen(["sleep", "1002"])
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)

    with Child("orphan") as one, pytest.raises(LabError, match="guardian"):
        one.do(kill, limit=5.0)
    assert gone(one.pid) and subprocess.run(["pgrep", "-fx", "sleep 1002"], capture_output=True).stdout == b""
    with Child("stopped") as one:
        one.do(lambda: os.kill(os.getppid(), signal.SIGSTOP))
    assert gone(one.pid)


def test_a_child_that_was_killed_between_two_stages_says_so() -> None:
    """And the next stage is not begun."""
    with Child("between") as one:
        os.kill(one.pid, signal.SIGKILL)
        until(lambda: gone(one.pid))
        with pytest.raises((Died, Refused)):
            one.do(os.getpid)


NOTEBOOK = """
import os, subprocess, sys, time
from labkit.lessons import Child
one = Child("lab")
pid = one.spawn("sleep", "1003")
def daemon():
    if os.fork() == 0:
        os.setsid()
        os.execvp("sleep", ["sleep", "1004"])
one.do(daemon)
print(one.pid, pid, flush=True)
"""


def pids_of(program: str, **extra: object) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a notebook's process; the pids below it, once it has said that they are there."""
    made = subprocess.Popen([sys.executable, "-c", NOTEBOOK + textwrap.dedent(program)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert made.stdout is not None
    made.stdout.readline()
    return made, tree.below(made.pid)


@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.fork(); os._exit(0)"])
def test_a_notebook_that_ends_takes_everything_with_it(end: str) -> None:
    """In good order, at once, by SIGKILL, and with a fork that holds the line open."""
    made, below = pids_of(f"input_ = sys.stdin\n{end}")
    made.communicate(timeout=20)
    until(lambda: all(map(gone, below)))


def test_an_interrupt_in_the_middle_of_a_stage_ends_the_child() -> None:
    """As the notebook's stop button does: KeyboardInterrupt, a note, nothing left; and the cell can run again."""
    program = """
    try:
        one.do(time.sleep, 1000, stage="long")
    except KeyboardInterrupt as error:
        print(one.closed, "interrupted in the stage 'long'" in error.__notes__[0])
    again = Child("lab")
    print(again.do(lambda: 5))
    again.close()
    time.sleep(1000)
    """
    made, below = pids_of(program)
    try:
        assert len(below) == 4 and made.stdout is not None
        time.sleep(0.3)
        made.send_signal(signal.SIGINT)
        assert "left 1 process behind (sleep)" in made.stdout.readline()
        assert made.stdout.readline() == "True True\n" and made.stdout.readline() == "5\n"
        assert all(map(gone, below))
        until(lambda: tree.below(made.pid) == [])
    finally:
        made.kill()
        made.communicate()


def test_two_notebooks_with_one_name_do_not_disturb_each_other() -> None:
    """Names are a process's own."""
    made, below = pids_of("time.sleep(1000)")
    try:
        with Child("lab") as one:
            assert one.do(os.getpid) == one.pid
        assert not any(map(gone, below))
    finally:
        made.kill()
        made.communicate()
    until(lambda: all(map(gone, below)))


def test_reset_ends_a_child_with_its_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ledger, which the guardian writes; the notebook is told when it asks again."""
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path))
    with Child("reset") as one:
        pid = one.spawn("sleep", "1000")
        (ledger,) = all_ledgers()
        assert ledger.owner.startswith("child-reset-")
        ledger.release_all()
        assert gone(one.pid) and gone(pid) and list(all_ledgers()) == []
        with pytest.raises(LabError, match="ended from outside"):
            one.do(os.getpid)
    with Child("tidy"):
        assert len(list(all_ledgers())) == 1
    assert list(all_ledgers()) == [] and Ledger("child-tidy").entries() == []


def test_waiting_calls_have_the_kernels_numbers() -> None:
    """The table's x86-64 and aarch64 columns, against the kernel's headers."""
    for column, header in enumerate(
        ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/aarch64-linux-gnu/include/asm-generic/unistd.h")
    ):
        if not Path(header).exists():
            pytest.skip(f"{header} is missing: make test installs it")
        words = [line.split() for line in Path(header).read_text().splitlines()]
        numbers = {
            word[1].removeprefix("__NR_").removeprefix("__NR3264_"): int(word[2])
            for word in words
            if len(word) >= 3 and word[0] == "#define" and word[1].startswith("__NR") and word[2].isdigit()
        }
        ours = {name: both[column] for name, both in hang.WAITING.items() if both[column] >= 0}
        assert {name: numbers.get(name) for name in ours} == ours
