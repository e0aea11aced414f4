"""A container's streams, exit status and signals are the command's; its init reaps."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from runtime_ground import IMAGE, Machine, child, in_a_machine, until

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine
# Signals 32 and 33 are the C library's own (nptl(7)): what some ancestor did to them, no program can undo.
NPTL = 3 << 31


def test_bytes_pass_through_unchanged(machine: Machine) -> None:
    """What goes in as standard input, every byte value and 300 kB of it, comes out of `cat`."""
    data = bytes(range(256)) * 1200
    done = machine.run(IMAGE, "cat", input=data, text=False)
    assert done.stdout == data and done.returncode == 0 and done.stderr == b""


def test_stdout_and_stderr_stay_apart(machine: Machine) -> None:
    """Each line arrives on the stream on which the command wrote it."""
    done = machine.run(IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("init", ["--init", "--no-init"])
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["/etc/passwd"], 126),
        (["/usr"], 126),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
    ],
)
def test_the_exit_status_is_dockers(machine: Machine, init: str, command: list[str], status: int) -> None:
    """The command's own, 126 when it cannot be executed, 127 when it is not there."""
    done = machine.run(init, IMAGE, *command)
    assert done.returncode == status, done.stderr
    assert bool(done.stderr) == (status > 125) and "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "status"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_a_signal_that_ends_the_command_is_128_and_its_number(machine: Machine, name: str, status: int) -> None:
    """As a shell and docker have it."""
    assert machine.run(IMAGE, "sh", "-c", f"kill -{name} $$").returncode == status


def test_a_missing_loader_is_told_from_a_missing_program(machine: Machine) -> None:
    """A script whose #! names nothing is status 126, and the message says what is missing."""
    folder = machine.folder / "broken"
    folder.mkdir()
    (folder / "x").write_text("#!/no/such/shell\n")
    (folder / "x").chmod(0o755)
    done = machine.run("-v", f"{folder}:/b", IMAGE, "/b/x")
    assert done.returncode == 126 and "interpreter" in done.stderr


@pytest.mark.parametrize("init", ["--init", "--no-init"])
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_reach_the_command(machine: Machine, init: str, name: str) -> None:
    """A signal sent to `labkit run` runs the command's own trap."""
    script = f"trap 'echo got {name}; exit 42' {name}; echo ready; while :; do sleep 0.05; done"
    process = machine.start("--network", "none", init, IMAGE, "sh", "-c", script)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    os.kill(child(process), getattr(signal, f"SIG{name}"))
    output, errors = process.communicate(timeout=20)
    assert (output, process.returncode) == (f"got {name}\n", 42), errors


def test_sigterm_ends_a_command_that_has_no_trap(machine: Machine) -> None:
    """With the init as process 1, the default action works: 143."""
    process = machine.start("--network", "none", IMAGE, "sh", "-c", "echo ready; exec sleep 100")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    os.kill(child(process), signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_command_ignores_no_signal_that_the_caller_ignored(machine: Machine) -> None:
    """`nohup labkit run` and `labkit run &` do not make the command deaf; nothing is blocked."""
    words = "trap '' HUP INT QUIT TERM USR1; exec \"$@\""
    command = [sys.executable, "-m", "labkit", "run", "--rm", "--network", "none", IMAGE]
    done = machine.sh("sh", "-c", words, "sh", *command, "grep", "Sig[BI]", "/proc/self/status")
    masks = [int(line.split()[1], 16) & ~NPTL for line in done.stdout.splitlines()]
    assert masks == [0, 0], done.stderr


def test_init_reaps_orphans(machine: Machine) -> None:
    """A child that its parent left is taken over by process 1, and no zombie stays."""
    script = "for n in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.6; cat /proc/[0-9]*/stat | cut -d' ' -f2-4"
    lines = machine.said(script).splitlines()
    assert lines[0].startswith("(labkit-init)")
    assert [line for line in lines if line.split()[1] == "Z"] == []
    assert [line for line in lines if "sleep" in line] == []


def test_without_init_the_command_is_process_1(machine: Machine) -> None:
    """--no-init: the command itself is 1 and its orphans become zombies; with the init it is 2."""
    assert machine.run("--no-init", IMAGE, "sh", "-c", "echo $$").stdout == "1\n"
    assert machine.run(IMAGE, "sh", "-c", "echo $$").stdout == "2\n"


@pytest.mark.parametrize(("init", "zombies"), [("--init", 0), ("--no-init", 1)])
def test_only_an_init_reaps_what_others_leave(machine: Machine, init: str, zombies: int) -> None:
    """An orphan of `labkit exec` vanishes under the init, and stays a zombie under a `sleep` as process 1."""
    machine.labkit("run", "-d", "--network", "none", init, "--name", "box", IMAGE, "sleep", "100")
    machine.labkit("exec", "box", "sh", "-c", "sleep 0.05 & :")
    time.sleep(0.3)
    states = machine.labkit("exec", "box", "sh", "-c", "cat /proc/[0-9]*/stat | cut -d' ' -f3").stdout.split()
    machine.labkit("rm", "--force", "box")
    assert states.count("Z") == zombies


def test_the_end_of_the_command_is_the_end_of_all(machine: Machine) -> None:
    """What the command left running in the background ends with the container."""
    started = time.monotonic()
    done = machine.run(IMAGE, "sh", "-c", "sleep 1000 & echo on")
    assert done.stdout == "on\n" and time.monotonic() - started < 20


def test_two_containers_do_not_wait_for_each_other(machine: Machine) -> None:
    """While one sleeps, another runs to its end (the lock is not inherited by the first's init)."""
    first = machine.start("--network", "none", "--name", "first", IMAGE, "sh", "-c", "echo on; sleep 100")
    assert first.stdout is not None and first.stdout.readline() == "on\n"
    try:
        assert machine.run(IMAGE, "echo", "second", timeout=20).stdout == "second\n"
    finally:
        assert machine.labkit("stop", "--time", "5", "first").returncode == 0
    assert first.wait(timeout=20) == 143
    first.communicate()


def test_many_at_once(machine: Machine) -> None:
    """Eight started together all end well, and their common cgroup with the last."""
    many = [machine.start("--network", "none", IMAGE, "echo", str(number)) for number in range(8)]
    assert [process.communicate(timeout=60) for process in many] == [(f"{number}\n", "") for number in range(8)]


def test_a_terminal_of_its_own(machine: Machine) -> None:
    """-t: the command's streams are a terminal of the container's own devpts, with the caller's size."""
    outer, inner = pty.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=inner, check=True)
    process = machine.start(
        *("--network", "none", "-t", IMAGE, "sh", "-c", "tty; stty size; read line; echo [$line]; exit 3"),
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    said = b""
    while b"33 99" not in said:
        said += os.read(outer, 4096)
    os.write(outer, b"typed\r")
    try:
        while data := os.read(outer, 4096):
            said += data
    except OSError:  # EIO: the other end is closed
        pass
    os.close(outer)
    assert process.wait(timeout=20) == 3
    assert said.replace(b"\r", b"").split(b"\n")[:4] == [b"/dev/pts/0", b"33 99", b"typed", b"[typed]"]


def test_control_c_in_a_terminal_reaches_the_command(machine: Machine) -> None:
    """The inner terminal turns the byte 3 into SIGINT for the foreground command, and the caller lives on."""
    outer, inner = pty.openpty()
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    process = machine.start("--network", "none", "-it", IMAGE, "sh", "-c", script, stdin=inner, stdout=inner)
    os.close(inner)
    said = b""
    while b"ready" not in said:
        said += os.read(outer, 4096)
    os.write(outer, b"\x03")
    while b"caught" not in said:
        said += os.read(outer, 4096)
    assert process.wait(timeout=20) == 9
    process.communicate()
    os.close(outer)


def test_sigterm_while_it_is_being_made_leaves_nothing(machine: Machine) -> None:
    """At ten moments of its start SIGTERM, SIGINT or SIGHUP ends `labkit run`, and all is given back."""
    for step in range(10):
        process = machine.start("--network", "none", IMAGE, "sleep", "100")
        target = child(process)
        time.sleep(0.02 + step * 0.012)
        os.kill(target, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[step % 3])
        _, errors = process.communicate(timeout=20)
        assert process.returncode not in (0, None)
        assert step % 3 == 1 or "Traceback" not in errors, (step, errors)  # Python's own, while it imports
        until(lambda: not machine.states())
