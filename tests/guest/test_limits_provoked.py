"""Limits proven by provoking them: what a cgroup gets at its limit, measured, with the tolerance stated.

Each measurement runs once in `make test`, and ten times in ten in what is long by nature.  CPU time
is the kernel's own count, so that a busy or emulated machine measures the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runtime_ground import until

from labkit.kernel import cgroups
from labkit.kernel.cgroups import cpu, io, memory, pids

pytestmark = pytest.mark.guest

HANDED = {"cpu", "io", "memory", "pids"}
MIB = 1 << 20
SPIN = ("sh", "-c", "while :; do :; done")


@pytest.fixture
def parent() -> Iterator[Path]:
    """A cgroup that hands the controllers on, and goes before its neighbours when CPUs are scarce."""
    top = cgroups.root()
    new = cgroups.enable(top, HANDED)
    made = top / f"test-{uuid.uuid4().hex[:12]}"
    cgroups.create(made)
    cgroups.enable(made, HANDED)
    cpu.limit(made, weight=10_000)
    yield made
    cgroups.remove(made)
    cgroups.disable(top, new)


@contextmanager
def group(parent: Path, name: str = "one") -> Iterator[Path]:
    """A cgroup below, which goes with all that runs in it."""
    made = parent / name
    cgroups.create(made)
    try:
        yield made
    finally:
        cgroups.remove(made)


def out_of_memory(parent: Path) -> None:
    """64 MiB in 32: killed, the peak within 1 MiB of the limit and never above it, the kill counted."""
    with group(parent) as one:
        memory.limit(one, max=32 * MIB, swap_max=0)
        words = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
        dead = cgroups.start(one, *words, stderr=subprocess.DEVNULL)
        assert dead.wait(120) == -signal.SIGKILL
        peak = memory.use(one).peak
        assert 31 * MIB <= peak <= 32 * MIB, f"memory.peak is {peak}"
        assert memory.events(one).oom_kill == 1


def at_rest(one: Path) -> cpu.Stat:
    """A reading at a moment in which a throttled cgroup owes nothing.

    Where the machine itself stands still for a while (emulated, or its host is busy), whoever is on the CPU
    is charged for that; the kernel then withholds as much from the periods to come.
    """
    last = cpu.stat(one)
    while True:
        time.sleep(0.02)
        now = cpu.stat(one)
        if 0 < now.usage - last.usage <= 0.03:
            return now
        last = now


def fifth_of_a_cpu(parent: Path) -> None:
    """A program that never rests gets 20 % of a CPU within 10 %, over ten seconds.

    Time is counted in the kernel's own periods: they stand in the same text as the usage, so that
    no delay between two readings counts.
    """
    with group(parent) as one:
        cpu.limit(one, cpus=0.2)
        spin = cgroups.start(one, *SPIN)
        until(lambda: cpu.stat(one).throttled_periods > 2, 60)
        before = at_rest(one)
        time.sleep(10)
        after = at_rest(one)
        seconds = (after.periods - before.periods) * cpu.limits(one).period
        share = (after.usage - before.usage) / seconds
        cgroups.kill(one)
        spin.wait(30)
        assert seconds >= 9
        assert 0.18 <= share <= 0.22, f"{share:.3f} of a CPU over {seconds:.1f} s"
        assert after.throttled_periods - before.throttled_periods >= 60


def weights(parent: Path) -> None:
    """Weights 100 and 300 on one CPU share it as 1 to 3 within 15 %, over five seconds.

    Both stand still while they are read.
    """
    with group(parent, "light") as light, group(parent, "heavy") as heavy:
        cpu.limit(light, weight=100)
        cpu.limit(heavy, weight=300)
        spins = [cgroups.start(one, "taskset", "-c", "0", *SPIN) for one in (light, heavy)]
        until(lambda: cpu.stat(light).usage > 0.5 and cpu.stat(heavy).usage > 0.5, 60)
        cgroups.freeze(parent, seconds=60)
        before = cpu.stat(light).usage, cpu.stat(heavy).usage
        cgroups.thaw(parent, seconds=60)
        time.sleep(5)
        cgroups.freeze(parent, seconds=60)
        after = cpu.stat(light).usage, cpu.stat(heavy).usage
        for one, spin in zip((light, heavy), spins, strict=True):
            cgroups.kill(one)
            spin.wait(30)
        cgroups.thaw(parent)
        ratio = (after[1] - before[1]) / (after[0] - before[0])
        assert 3 * 0.85 <= ratio <= 3 * 1.15, f"1 to {ratio:.2f}"


def processes(parent: Path) -> None:
    """20 processes and not one more; the fork that failed is counted; all of them go at once."""
    with group(parent) as one:
        pids.limit(one, 20)
        script = "n=0; while [ $n -lt 40 ]; do sleep 1000 & n=$((n + 1)); done"
        shell = cgroups.start(one, "sh", "-c", script, stderr=subprocess.DEVNULL)
        assert shell.wait(60) != 0  # it could not fork
        use = pids.use(one)
        assert (use.peak, use.current, pids.events(one)) == (20, 19, 1)


def reading_a_disk(parent: Path) -> None:
    """2 MiB a second from a block device, within 15 %, over 20 MiB read past the page cache, by dd's own clock."""
    file = Path("/var/tmp") / f"{parent.name}.disk"
    with file.open("wb") as opened:
        opened.truncate(20 * MIB)
    device = subprocess.run(["losetup", "--find", "--show", str(file)], check=True, capture_output=True, text=True)
    where = device.stdout.strip()
    try:
        with group(parent) as one:
            io.limit(one, where, rbps=2 * MIB)
            words = ["dd", f"if={where}", "of=/dev/null", "bs=256k", "count=80", "iflag=direct"]
            reader = cgroups.start(one, *words, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"})
            said = reader.communicate(timeout=120)[1]
            assert io.stat(one)[io.device(where)].read >= 20 * MIB
            seconds = float(said.splitlines()[-1].split(", ")[-2].removesuffix(" s"))
            rate = 20 / seconds
            assert 2 * 0.85 <= rate <= 2 * 1.15, f"{rate:.2f} MiB/s over {seconds:.2f} s"
    finally:
        subprocess.run(["losetup", "--detach", where], check=True)
        file.unlink()


MEASURED = [out_of_memory, fifth_of_a_cpu, weights, processes, reading_a_disk]


@pytest.mark.parametrize("measured", MEASURED, ids=lambda one: one.__name__)
def test_a_limit_holds(measured: Callable[[Path], None], parent: Path) -> None:
    """Within the tolerance that the measurement states."""
    measured(parent)


@pytest.mark.long
@pytest.mark.parametrize("measured", MEASURED, ids=lambda one: one.__name__)
def test_a_limit_holds_ten_times_in_ten(measured: Callable[[Path], None], parent: Path) -> None:
    """Not once is the tolerance missed."""
    for _ in range(10):
        measured(parent)
