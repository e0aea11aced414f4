"""`labkit guest exec`: a command in the machine as if it ran here."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TREE, Lab

ODD = ["a b", "it's", 'say "x"', "two\nlines", "$HOME", "`id`", "*", "\\", "", "ü€", "-n", ";true", "&"]
ARGUMENTS = "import sys; sys.stdout.buffer.write(b'\\0'.join(a.encode() for a in sys.argv[1:]))"


@contextlib.contextmanager
def ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A child that a failed test leaves behind would be waited for, for ever."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.kill()


@pytest.mark.parametrize("status", [0, 1, 7, 126, 255])
def test_the_exit_status_comes_back(lab: Lab, status: int) -> None:
    """What the command ended with is what `labkit guest exec` ends with."""
    assert lab.run("sh", "-c", f"exit {status}").returncode == status


def test_a_command_that_is_not_there_is_127(lab: Lab) -> None:
    """As a shell has it."""
    done = lab.run("no-such-command")
    assert done.returncode == 127
    assert b"no-such-command" in done.stderr


def test_a_command_ended_by_a_signal_is_128_and_its_number(lab: Lab) -> None:
    """SIGKILL from within is 137."""
    assert lab.run("sh", "-c", "kill -9 $$").returncode == 137


def test_output_and_errors_stay_apart(lab: Lab) -> None:
    """stdout is stdout, stderr is stderr, and nothing else is in either: no greeting, no carriage return."""
    done = lab.run("sh", "-c", "echo out; echo err >&2; echo more")
    assert (done.stdout, done.stderr) == (b"out\nmore\n", b"err\n")


def test_binary_data_passes_both_ways(lab: Lab) -> None:
    """All 256 bytes and a megabyte of chance come back as they went, through stdin and stdout."""
    data = bytes(range(256)) * 16 + os.urandom(1 << 20)
    assert lab.run("cat", stdin=data).stdout == data


def test_the_end_of_stdin_arrives(lab: Lab) -> None:
    """A command that reads to the end sees the end, of an empty stdin too."""
    assert lab.run("wc", "-c", stdin=b"").stdout.strip() == b"0"
    assert lab.run("wc", "-c", stdin=b"12345").stdout.strip() == b"5"


def test_arguments_arrive_as_they_are(lab: Lab) -> None:
    """Spaces, quotes, newlines, dollars, stars and empty words: nothing is expanded, split or lost."""
    assert lab.run("python3", "-c", ARGUMENTS, *ODD).stdout == b"\0".join(word.encode() for word in ODD)


def test_the_working_folder_corresponds(lab: Lab) -> None:
    """A folder of the checkout is the same folder of /lab there; any other place is /lab."""
    assert lab.run("pwd", cwd=TREE).stdout == b"/lab\n"
    assert lab.run("pwd", cwd=TREE / "tests" / "hostguest").stdout == b"/lab/tests/hostguest\n"
    assert lab.run("pwd", cwd=Path("/")).stdout == b"/lab\n"


def test_it_is_root_there_with_labkit_at_hand(lab: Lab) -> None:
    """User 0, and the kit of the shared tree is on the PATH."""
    assert lab.text("id", "-u") == "0\n"
    assert "labkit" in lab.text("labkit", "--version")


def test_there_is_no_terminal_when_here_is_none(lab: Lab) -> None:
    """A pipe here is a pipe there."""
    assert lab.run("test", "-t", "0").returncode == 1
    assert lab.run("test", "-t", "1").returncode == 1


def test_a_terminal_is_given_when_asked(lab: Lab) -> None:
    """--tty gives one, whatever this side has."""
    assert lab.guest("exec", "--tty", "--", "test", "-t", "1").returncode == 0


def test_nothing_to_run_is_said(lab: Lab) -> None:
    """No command: an error that shows how to give one."""
    done = lab.guest("exec", "--")
    assert done.returncode != 0
    assert "labkit guest exec -- COMMAND" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_command_there(lab: Lab, number: signal.Signals, status: int) -> None:
    """The signal reaches the command; 128 and its number come back; no process and no mark is left there."""
    mark = f"4{secrets.randbelow(10**8):08d}"  # a length of sleep that nobody else asks for
    with lab.start("sleep", mark, stdin=subprocess.DEVNULL) as child, ended(child):
        lab.until(f"pgrep -fx 'sleep {mark}'")
        child.send_signal(number)
        assert child.wait(timeout=60) == status
    assert lab.run("pgrep", "-fx", f"sleep {mark}").returncode == 1
    # The command that asks has its own mark, and others may use the lab meanwhile: none may belong to the dead.
    assert lab.text("sh", "-c", "for m in /run/labkit-exec/*; do kill -s 0 -- -$(cat $m) || echo $m; done") == ""


def test_ctrl_c_ends_the_command_there(lab: Lab) -> None:
    """SIGINT to the whole group, as a terminal sends it, ends the command there and not the shared connection."""
    mark = f"5{secrets.randbelow(10**8):08d}"
    with lab.start("sleep", mark, stdin=subprocess.DEVNULL, start_new_session=True) as child, ended(child):
        lab.until(f"pgrep -fx 'sleep {mark}'")
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=60) == 130
    assert lab.run("pgrep", "-fx", f"sleep {mark}").returncode == 1


def test_a_command_that_handles_a_signal_ends_as_it_likes(lab: Lab) -> None:
    """SIGTERM is passed on, not turned into an end: a trap runs, and its status comes back."""
    script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.2; done"
    with lab.start("sh", "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child, ended(child):
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        child.terminate()
        assert child.stdout.read() == b"bye\n"
        assert child.wait(timeout=60) == 5


def test_commands_run_side_by_side(lab: Lab) -> None:
    """Five at once over the one connection, each with its own output and status."""
    children = [lab.start("sh", "-c", f"sleep 1; echo {i}; exit {i}", stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) for i in range(5)]  # fmt: skip
    said = [child.communicate(timeout=120)[0] for child in children]
    assert said == [f"{i}\n".encode() for i in range(5)]
    assert [child.returncode for child in children] == list(range(5))


def test_the_tree_is_live_in_both_directions(lab: Lab) -> None:
    """What the host writes is read there at once; what root writes there has the checkout's owner here."""
    here = TREE / f".live-{secrets.token_hex(4)}"
    try:
        here.write_text("from the host\n")
        assert lab.text("cat", f"/lab/{here.name}") == "from the host\n"
        lab.text("sh", "-c", f"echo from the lab > /lab/{here.name}.2")
        other = here.with_name(f"{here.name}.2")
        assert other.read_text() == "from the lab\n"
        assert (other.stat().st_uid, other.stat().st_gid) == (TREE.stat().st_uid, TREE.stat().st_gid)
        here.write_text("changed\n")
        assert lab.text("cat", f"/lab/{here.name}") == "changed\n"
    finally:
        for path in TREE.glob(f"{here.name}*"):
            path.unlink()


def test_a_small_command_is_quick(lab: Lab) -> None:
    """The connection is shared: the second command does not pay for a new one (10 s, for a busy emulated machine)."""
    lab.text("true")
    began = time.monotonic()
    lab.text("true")
    assert time.monotonic() - began < 10
