"""`labkit run` killed at any moment, `labkit reset`, and what reset must not touch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runtime_ground import IMAGE, Machine, child, in_a_machine

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine

# The victim is labkit itself.  It counts every call and return at which something is written down,
# made or asked for, in its own process only, and kills itself at one of them.
VICTIM = """
import os, signal, sys
at, me, count = int(sys.argv[1]), os.getpid(), 0
STEPS = {"call", "clone3", "_append", "record", "save", "mkdir", "write_text", "rename", "unlink", "rmdir",
         "create", "start", "wait", "send", "receive", "give_back", "release", "request", "apply", "_remove",
         "take", "replace", "forget", "_make", "hear", "run"}
def watch(frame, event, argument):
    global count
    if event in ("call", "return") and frame.f_code.co_name in STEPS and os.getpid() == me:
        count += 1
        if count == at:
            os.kill(me, signal.SIGKILL)
from labkit import cli
from labkit.runtime import commands, run, container, upkeep
from labkit.runtime.life import maker, verbs
from labkit.network import bridge, inside
from labkit.image import layers, store
sys.setprofile(watch)
status = cli.main(sys.argv[2:])
sys.setprofile(None)
if at == 0:
    print(count)
sys.exit(status)
"""
COMMAND = ["run", "--rm", "--name", "victim", IMAGE, "sh", "-c", "sleep 0.1"]


def strike(machine: Machine, at: int, command: list[str]) -> tuple[int, str, str]:
    """Run the command, to be killed at that moment (0: never)."""
    done = machine.sh(sys.executable, "-c", VICTIM, str(at), *command, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def kill_at_moments(machine: Machine, network: str, most: int | None) -> None:
    """Kill at `most` moments spread over the whole life (None: at each); reset twice; look from outside."""
    command = [COMMAND[0], "--network", network, *COMMAND[1:]]
    before = machine.census()
    machine.run(IMAGE, "true")  # the layers are unpacked now, so that every run takes the same course
    status, out, err = strike(machine, 0, command)
    assert status == 0, err
    total = int(out)
    assert total > 50
    moments = range(1, total + 1) if most is None else [1 + (total - 1) * step // (most - 1) for step in range(most)]
    for at in moments:
        status, out, err = strike(machine, at, command)
        if at < total - 5:  # a few steps more or less: reaping and waiting do not take the same course each time
            assert status == -signal.SIGKILL, (at, status, err)
        first = machine.labkit("reset")
        assert first.returncode == 0, (at, first.stderr)
        after = machine.census()
        assert after == before, (
            at,
            total,
            first.stdout,
            [(k, before[k], after[k]) for k in before if before[k] != after[k]],
        )
        second = machine.labkit("reset")
        assert second.stdout == "labkit reset: nothing to give back\n", (at, second.stdout)
        assert machine.census() == before, at


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_killed_at_ten_moments_a_reset_gives_all_back(machine: Machine, network: str) -> None:
    """After SIGKILL and a reset the census is as before, and a second reset finds nothing."""
    kill_at_moments(machine, network, 10)


@pytest.mark.long
@pytest.mark.parametrize("network", ["none", "bridge"])
def test_killed_at_every_moment_a_reset_gives_all_back(machine: Machine, network: str) -> None:
    """The same at each call and return that changes anything."""
    kill_at_moments(machine, network, None)


@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("init", ["--init", "--no-init"])
def test_killed_while_the_command_runs(machine: Machine, user: str, init: str) -> None:
    """SIGKILL of `labkit run` in the middle: ps says that it is lost, or it ended with its keeper; reset ends it."""
    process = machine.start(
        "--network", "none", "--name", "box", "--user", user, init, IMAGE, "sh", "-c", "echo; sleep 99"
    )
    assert process.stdout is not None
    process.stdout.readline()
    pid = machine.pid_of("box")
    os.kill(child(process), signal.SIGKILL)
    process.wait(timeout=20)
    assert machine.labkit("reset").returncode == 0
    process.communicate(timeout=20)  # nobody holds the streams any more
    assert machine.sh("kill", "-0", str(pid)).returncode != 0
    assert machine.states() == []


def test_the_monitor_of_a_detached_container_killed(machine: Machine) -> None:
    """ps --all says lost and what to do; stop and rm still work on it, and reset is not even needed."""
    machine.labkit("run", "-d", "--network", "bridge", "--name", "box", IMAGE, "sleep", "99")
    machine.pid_of("box")
    assert machine.sh("pkill", "-KILL", "-x", "labkit-monitor").returncode == 0  # in the machine's own pid namespace
    time.sleep(0.2)
    assert "lost" in machine.labkit("ps", "--all").stdout
    done = machine.labkit("rm", "--force", "box")
    assert done.returncode == 0, done.stderr


def test_reset_ends_running_containers_and_forgets_ended_ones(machine: Machine) -> None:
    """Everything that labkit ever acquired, whether in use or not; it says what."""
    machine.labkit("run", "-d", "--name", "on", IMAGE, "sleep", "99")
    machine.labkit("run", "--network", "none", "--name", "ended", IMAGE, "true")
    assert {state["name"] for state in machine.states()} == {"on", "ended"}
    said = machine.labkit("reset").stdout
    assert "cgroup" in said and "link" in said and "directory" in said and "nft_table" in said
    assert machine.labkit("reset").stdout == "labkit reset: nothing to give back\n"


def test_what_cannot_be_given_back_stops_nothing_else(machine: Machine) -> None:
    """A reset with one bad entry gives back all the rest, says so, and ends with the entry's error."""
    machine.labkit("run", "-d", "--network", "none", "--name", "on", IMAGE, "sleep", "99")
    bad = 'from labkit.kernel.ledger import Ledger; Ledger("a-bad-one").record("cgroup", folder="renamed")'
    assert machine.sh(sys.executable, "-c", bad).returncode == 0
    done = machine.labkit("reset")
    assert done.returncode == 125 and "cannot give back cgroup renamed" in done.stderr
    assert "gave back directory" in done.stdout and machine.states() == []
    strike = 'from labkit.kernel.ledger import Ledger; a = Ledger("a-bad-one"); a.forget(a.entries()[0])'
    assert machine.sh(sys.executable, "-c", strike).returncode == 0
    assert machine.labkit("reset").stdout == "labkit reset: nothing to give back\n"


def test_a_network_that_cannot_be_given_back_keeps_no_other(machine: Machine) -> None:
    """The one that has something left stays known, so that the next reset finds it; the others are forgotten."""
    for name in ("aa", "bb"):
        assert machine.labkit("network", "create", name).returncode == 0
    book = 'from labkit.kernel.ledger import Ledger; a = Ledger("network-aa"); '
    assert machine.sh(sys.executable, "-c", book + 'a.record("cgroup", folder="renamed")').returncode == 0
    done = machine.labkit("reset")
    assert done.returncode == 125 and "cannot give back cgroup renamed" in done.stderr
    left = machine.labkit("network", "ls").stdout
    assert "aa" in left and "bb" not in left
    assert machine.sh(sys.executable, "-c", book + "a.forget(a.entries()[0])").returncode == 0
    assert machine.labkit("reset").returncode == 0
    assert "aa" not in machine.labkit("network", "ls").stdout


def test_images_and_named_volumes_outlive_a_reset(machine: Machine) -> None:
    """They hold what somebody wanted to keep."""
    machine.said("echo kept > /v/file", "-v", "keep:/v")
    machine.labkit("reset")
    assert machine.said("cat /v/file", "-v", "keep:/v") == "kept\n"
    assert IMAGE in machine.labkit("images").stdout


FOREIGN = """
set -e
mkdir -p /sys/fs/cgroup/labkit-other /sys/fs/cgroup/labkit/0123
sh -c 'echo $$ > /sys/fs/cgroup/labkit-other/cgroup.procs; exec sleep 1234' >/dev/null 2>&1 &
ip link add lk0123456789 type veth peer name lk9876543210
ip link add labkit1 type bridge
nft add table ip labkit-other
nft add table ip6 labkit
mkdir -p "$1/run/labkit-mount" "$1/run/netns"
mount -t tmpfs labkit "$1/run/labkit-mount"
mkdir -p "$1/elsewhere/containers/0123"
"""
FOREIGN_GONE = """
pid=$(cat /sys/fs/cgroup/labkit-other/cgroup.procs); kill $pid
until rmdir /sys/fs/cgroup/labkit-other 2>/dev/null; do sleep 0.05; done
rmdir /sys/fs/cgroup/labkit/0123 /sys/fs/cgroup/labkit
ip link del lk0123456789; ip link del labkit1
nft delete table ip labkit-other; nft delete table ip6 labkit
umount "$1/run/labkit-mount"
"""


@pytest.mark.parametrize("crash", [False, True])
def test_reset_leaves_what_others_made(machine: Machine, crash: bool) -> None:
    """Cgroups, a process, links, tables and a mount under names like ours are there after a reset, untouched."""
    folder = str(machine.folder)
    made = machine.sh("sh", "-c", FOREIGN, "sh", folder, stdout=None, capture_output=False)
    assert made.returncode == 0
    try:
        before = machine.census()
        if crash:
            strike(machine, 60, [COMMAND[0], "--network", "bridge", *COMMAND[1:]])
        else:
            assert machine.labkit(COMMAND[0], "--network", "bridge", *COMMAND[1:]).returncode == 0
        assert machine.labkit("reset").returncode == 0
        assert machine.census() == before
        assert Path(folder, "elsewhere/containers/0123").is_dir()
    finally:
        assert machine.sh("sh", "-c", FOREIGN_GONE, "sh", folder).returncode == 0
