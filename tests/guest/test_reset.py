"""SIGKILL at ten moments with network and limits, then `labkit reset`: nothing is left, nobody else's is touched."""

from __future__ import annotations

import pytest
from runtime_ground import IMAGE, Machine

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest

# One program does it all, since a start of Python takes seconds here: each victim and each reset is
# a fork of it.  The victim dies at the given call or return of those functions that change anything.
DRIVER = """
import os, signal, sys
from labkit import cli
from labkit.runtime import channel, commands, container, run, upkeep
from labkit.runtime.life import maker, verbs
from labkit.network import bridge, inside, ports
from labkit.image import layers, store
from labkit.observe import census

STEPS = {"call", "clone3", "_append", "record", "save", "mkdir", "write_text", "rename", "unlink", "rmdir",
         "create", "start", "wait", "send", "receive", "give_back", "release", "request", "apply", "_remove",
         "take", "replace", "forget", "_make", "hear", "run"}
COMMAND = ["run", "--rm", "--name", "victim", "--memory", "256m", "--cpus", "1", "--pids-limit", "4096",
           "-p", "8080:80", IMAGE, "true"]

def forked(work):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = work()
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(repr(error) + str(error) + chr(10))
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, json.loads(said) if said else None

def victim(at):
    me, count = os.getpid(), 0
    def watch(frame, event, argument):
        nonlocal count
        if event in ("call", "return") and frame.f_code.co_name in STEPS and os.getpid() == me:
            count += 1
            if count == at:
                os.kill(me, signal.SIGKILL)
    sys.setprofile(watch)
    status = cli.main(COMMAND)
    sys.setprofile(None)
    return [status, count]

forked(lambda: victim(0))  # unpacks the layers
before = census.take()
code, (status, total) = forked(lambda: victim(0))
assert (code, status) == (0, 0)
assert census.difference(before, census.take()) == []
killed = 0
for step in range(10):
    at = 1 + (total - 8) * step // 9
    code, _ = forked(lambda: victim(at))
    killed += code == -9
    code, given_back = forked(upkeep.reset)
    assert code == 0, at
    assert census.difference(before, census.take()) == [], (at, total, given_back)
    code, given_back = forked(upkeep.reset)
    assert (code, given_back) == (0, []), (at, given_back)
    assert census.difference(before, census.take()) == [], at
say([killed, total])
"""


def test_killed_at_ten_moments_a_reset_gives_all_back(machine: Machine) -> None:
    """From the first ledger entry to the last release; a second reset finds nothing and changes nothing."""
    killed, total = machine.python(DRIVER.replace("IMAGE", repr(IMAGE)), timeout=300)
    assert killed == 10 and total > 100


FOREIGN = """
set -e
mkdir -p /sys/fs/cgroup/labkit-other /sys/fs/cgroup/labkit/0123
sh -c 'echo $$ > /sys/fs/cgroup/labkit-other/cgroup.procs; exec sleep 1234' >/dev/null 2>&1 &
ip link add labkit1 type bridge
ip link add lk0123456789 type veth peer name lk9876543210
nft add table ip labkit-other
nft add table ip labkit
"""
FOREIGN_GONE = """
kill $(cat /sys/fs/cgroup/labkit-other/cgroup.procs)
until rmdir /sys/fs/cgroup/labkit-other 2>/dev/null; do sleep 0.05; done
rmdir /sys/fs/cgroup/labkit/0123 /sys/fs/cgroup/labkit
ip link del labkit1; ip link del lk0123456789
nft delete table ip labkit-other; nft delete table ip labkit
"""


def test_what_others_made_stays(machine: Machine) -> None:
    """A cgroup with a process, links and tables under names like ours outlive a run with limits and a reset."""
    assert machine.sh("sh", "-c", FOREIGN, capture_output=False).returncode == 0
    try:
        before = machine.census()
        done = machine.labkit("run", "--rm", "--memory", "64m", "-p", "8080:80", IMAGE, "echo", "beside")
        assert done.stdout == "beside\n", done.stderr
        machine.labkit("run", "-d", "--name", "left", "--memory", "64m", IMAGE, "sleep", "1000")
        assert machine.labkit("reset").returncode == 0
        after = machine.census()
        assert after == before, [(kind, before[kind], after[kind]) for kind in before if before[kind] != after[kind]]
    finally:
        assert machine.sh("sh", "-c", FOREIGN_GONE).returncode == 0
