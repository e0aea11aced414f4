"""Each controller of cgroup v2 through labkit's typed limits and readings; the oracle is the file's own text."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_ground import until

from labkit.errors import LabError, NotFound, Refused
from labkit.kernel import cgroups
from labkit.kernel.cgroups import counted, cpu, events, io, memory, pids, pressure

pytestmark = pytest.mark.guest

HANDED = {"cpu", "io", "memory", "pids"}  # not cpuset: see labkit.kernel.cgroups.cpuset
BALLAST = "import sys, time; kept = bytearray(b'x' * {size}); print('there', flush=True); time.sleep(1000)"


@pytest.fixture
def group() -> Iterator[Path]:
    """A new cgroup that has the controllers; removed afterwards."""
    top = cgroups.root()
    new = cgroups.enable(top, HANDED)
    made = top / f"test-{uuid.uuid4().hex[:12]}"
    cgroups.create(made)
    yield made
    cgroups.remove(made)
    cgroups.disable(top, new)


def text(group: Path, name: str) -> str:
    return (group / name).read_text().strip()


def disk() -> str:
    """The machine's own disk."""
    return io.device("/")


def test_limits_of_memory_are_written_and_read_in_bytes(group: Path) -> None:
    """Every field ends in its file, None is max, what is not mentioned stays."""
    memory.limit(group, min=1 << 20, low=2 << 20, high=200 << 20, max=256 << 20, swap_max=0, oom_group=True)
    names = ["memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.max", "memory.oom.group"]
    assert [text(group, name) for name in names] == ["1048576", "2097152", "209715200", "268435456", "0", "1"]
    assert memory.limits(group) == (1 << 20, 2 << 20, 200 << 20, 256 << 20, None, 0, True)
    memory.limit(group, high=None)
    assert (text(group, "memory.high"), memory.limits(group).max) == ("max", 256 << 20)


def test_limits_of_cpu_are_cpus_and_seconds(group: Path) -> None:
    """0.2 CPUs, a weight and a burst."""
    cpu.limit(group, cpus=0.2, burst=0.01, weight=300)
    found = [text(group, name) for name in ("cpu.max", "cpu.max.burst", "cpu.weight")]
    assert found == ["20000 100000", "10000", "300"]
    limits = cpu.limits(group)
    assert (limits.cpus, limits.period, limits.weight, limits.burst, limits.idle) == (0.2, 0.1, 300, 0.01, False)
    cpu.limit(group, cpus=None)
    assert text(group, "cpu.max") == "max 100000" and cpu.limits(group).cpus is None


def test_limits_of_io_are_by_device(group: Path) -> None:
    """io.max by path or number; what is not mentioned stays; None takes a limit away."""
    io.limit(group, "/", rbps=1 << 20, wiops=100)
    assert text(group, "io.max") == f"{disk()} rbps=1048576 wbps=max riops=max wiops=100"
    io.limit(group, disk(), rbps=None)
    assert io.limits(group) == {disk(): (None, None, None, 100)}


def test_readings_agree_with_what_a_process_does(group: Path) -> None:
    """Memory, CPU time, processes and what was read from the disk, against the kernel's own text."""
    ballast = cgroups.start(group, sys.executable, "-c", BALLAST.format(size=20 << 20), stdout=subprocess.PIPE)
    try:
        assert ballast.stdout is not None
        assert ballast.stdout.readline() == b"there\n"
        now = memory.use(group)
        assert 20 << 20 < now.current <= now.peak and memory.stat(group)["anon"] > 20 << 20
        working = memory.working_set(group)
        assert 20 << 20 < working <= memory.use(group).peak
        assert cpu.stat(group).usage > 0 and cpu.stat(group).user + cpu.stat(group).system > 0
        assert pids.use(group) == (1, 1) and cgroups.processes(group) == [ballast.pid]
        words = ["dd", f"if=/dev/block/{disk()}", "of=/dev/null", "bs=64k", "count=4", "iflag=direct"]
        assert cgroups.start(group, *words, stderr=subprocess.DEVNULL).wait(60) == 0
        assert io.stat(group)[disk()].read >= 4 << 16 and io.total(group).reads >= 4
        assert (counted.misc(group), counted.hugetlb(group)) == ({}, {}), "neither is handed down here"
    finally:
        ballast.kill()
        ballast.communicate()


def test_a_limit_below_what_is_used_is_refused_and_changes_nothing(group: Path) -> None:
    """memory.max and pids.max; with below_use the kernel has its way."""
    ballast = cgroups.start(group, sys.executable, "-c", BALLAST.format(size=20 << 20), stdout=subprocess.PIPE)
    assert ballast.stdout is not None and ballast.stdout.readline() == b"there\n"
    with pytest.raises(Refused, match="is not set to 4 MiB") as caught:
        memory.limit(group, max=4 << 20, high=2 << 20)
    assert "in use there" in caught.value.why
    with pytest.raises(Refused, match=r"pids\.max"):
        pids.limit(group, 0)
    assert (memory.limits(group).max, memory.limits(group).high, pids.limits(group)) == (None, None, None)
    with events.Watch(group, "memory.events") as watch:
        watch.now()
        memory.limit(group, max=4 << 20, swap_max=0, below_use=True)
        assert ballast.wait(60) == -signal.SIGKILL
        assert events.wait_for(group, "memory.events", lambda now: now["oom_kill"] == 1)["oom_kill"] == 1
    ballast.communicate()


def test_reclaim_says_how_much_came_back(group: Path, tmp_path: Path) -> None:
    """The page cache of a file that was read goes; what is no cache stays, and that is no error."""
    file = Path("/var/tmp") / f"{group.name}.data"
    file.write_bytes(bytes(8 << 20))
    try:
        read = f"dd if={file} of=/dev/null bs=1M; sleep 1000"
        subprocess.run(["sh", "-c", f"sync {file}; dd if={file} of=/dev/null iflag=nocache count=0"],
                       check=True, capture_output=True)  # fmt: skip
        reader = cgroups.start(group, "sh", "-c", read, stderr=subprocess.DEVNULL, start_new_session=True)
        until(lambda: memory.stat(group)["file"] >= 8 << 20, 60)
        assert memory.reclaim(group, 6 << 20) >= 4 << 20
        memory.reclaim(group, 1 << 30)
        assert reader.poll() is None
        cgroups.kill(group)
        reader.wait(30)
    finally:
        file.unlink()


def test_events_are_waited_for_and_not_missed(group: Path) -> None:
    """A change between reading and waiting is seen at once; without one the wait ends with None."""
    with events.Watch(group, "cgroup.events") as watch:
        assert watch.now()["populated"] == 0
        assert watch.wait(0.05) is None
        child = cgroups.start(group, "sleep", "1000")
        assert until(lambda: watch.wait(30))["populated"] == 1
        cgroups.kill(group)
        assert watch.wait(30) == {"populated": 0, "frozen": 0}
        assert child.wait(30) == -signal.SIGKILL


def test_freezing_stands_still_until_thawed(group: Path) -> None:
    """No CPU time is used while frozen; below a frozen cgroup, thawing is refused with the reason."""
    below = group / "below"
    cgroups.create(below)
    spin = cgroups.start(below, "sh", "-c", "while :; do :; done")
    until(lambda: cpu.stat(group).usage > 0.05, 60)
    cgroups.freeze(group)
    used = cpu.stat(group).usage
    time.sleep(0.3)
    assert cpu.stat(group).usage == used
    with pytest.raises(LabError, match="stays frozen") as caught:
        cgroups.thaw(below)
    assert str(group) in caught.value.why
    cgroups.thaw(group)
    until(lambda: cpu.stat(group).usage > used, 60)
    cgroups.kill(group)
    spin.wait(30)


def test_room_for_controllers_is_made(group: Path) -> None:
    """`nest` moves the processes below and hands the controllers on; `move` brings them elsewhere."""
    children = [cgroups.start(group, "sleep", "1000") for _ in range(3)]
    until(lambda: len(cgroups.processes(group)) == 3)
    below = cgroups.nest(group, {"memory", "pids"})
    assert (cgroups.processes(group), len(cgroups.processes(below))) == ([], 3)
    assert set(text(group, "cgroup.subtree_control").split()) == {"memory", "pids"}
    cgroups.create(group / "other")
    assert sorted(cgroups.move(below, group / "other")) == sorted(child.pid for child in children)
    cgroups.kill(group)
    assert {child.wait(30) for child in children} == {-signal.SIGKILL}


def test_an_ordinary_user_is_given_a_cgroup(group: Path) -> None:
    """The files of the kernel's list change hands and no other; nobody makes a cgroup below and limits it."""
    given = {path.name for path in cgroups.delegate(group, 65534, 65534)} - {group.name}
    listed = set(Path("/sys/kernel/cgroup/delegate").read_text().split())
    assert given == {name for name in listed if (group / name).exists()}
    owned = {path.name for path in group.iterdir() if path.stat().st_uid == 65534}
    assert owned == given and "memory.max" not in owned
    script = (
        f"cd {group} && echo +pids >cgroup.subtree_control && mkdir own && echo 7 >own/pids.max && cat own/pids.max"
    )
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", script], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
    refused = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", f"echo 1 >{group}/pids.max"],
                             capture_output=True, text=True)  # fmt: skip
    assert "Permission denied" in refused.stderr


def test_a_child_born_inside_was_counted_nowhere_else(group: Path) -> None:
    """clone3 into the cgroup in a program with one thread: its first and only cgroup is this one."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom labkit.kernel import cgroups\n"
        "pid = cgroups.born(Path(sys.argv[1]))\n"
        "if pid == 0: print(open('/proc/self/cgroup').read(), end='', flush=True); os._exit(0)\n"
        "os.waitpid(pid, 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(group)], capture_output=True, text=True)
    assert done.stdout == f"0::/{group.name}\n", done
    assert pids.use(group).peak == 1
    gone = subprocess.run([sys.executable, "-c", code, str(group / "gone")], capture_output=True, text=True)
    assert "there is no cgroup" in gone.stderr


def test_pressure_on_the_cpu_fires_a_trigger(group: Path) -> None:
    """Three programs on a fifth of a CPU: the trigger fires, and the reading has grown."""
    cpu.limit(group, cpus=0.2)
    before = pressure.read(group, "cpu").some.total
    with pressure.Trigger(group, "cpu", stall=0.1, window=1) as trigger:
        spins = [cgroups.start(group, "sh", "-c", "while :; do :; done") for _ in range(3)]
        assert trigger.wait(60)
    assert pressure.read(group, "cpu").some.total - before >= 0.1
    cgroups.kill(group)
    for spin in spins:
        spin.wait(30)


def test_a_trigger_of_a_cgroup_that_goes_ends_its_wait(group: Path) -> None:
    """Nobody waits for ever."""
    below = group / "below"
    cgroups.create(below)
    with pressure.Trigger(below, "memory", stall=0.1) as trigger, events.Watch(below, "cgroup.events") as watch:
        cgroups.remove(below)
        with pytest.raises(NotFound):
            trigger.wait(30)
        with pytest.raises(NotFound, match="there is no cgroup"):
            watch.now()


def test_a_limit_without_its_controller_says_who_does_not_hand_it_down(group: Path) -> None:
    """Nothing is handed to a cgroup below: each typed limit and reading explains."""
    below = group / "below"
    cgroups.create(below)
    for attempt in (
        lambda: memory.limit(below, max=1 << 20),
        lambda: memory.use(below),
        lambda: pids.limit(below, 5),
        lambda: cpu.limit(below, weight=50),
        lambda: io.limit(below, "/", rbps=1),
        lambda: io.limits(below),
    ):
        with pytest.raises(LabError, match=r"cannot (write|read)") as caught:
            attempt()
        assert "is not handed to" in caught.value.why and "cgroup.subtree_control" in caught.value.next
    with pytest.raises(Refused, match=r"has no io\.latency"):
        io.latency(below, "/", 0.01)


def test_a_weight_for_disks_is_set_or_refused_with_the_reason(group: Path) -> None:
    """Where the kernel has a file for it, the file holds it."""
    try:
        name = io.weight_file(group)
    except Refused as error:
        assert "io.bfq.weight" in error.why and not list(group.glob("io.*weight"))
        return
    io.weight(group, 250)
    assert io.weights(group) == (name, 250, {})
