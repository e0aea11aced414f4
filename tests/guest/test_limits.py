"""Limits of a container, held against the kernel's own files and what the kernel does about them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from runtime_ground import IMAGE, Machine, until

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest

FILES = ["memory.max", "memory.swap.max", "cpu.max", "pids.max"]


def table(text: str) -> dict[str, int]:
    """A flat keyed file of a cgroup, cpu.stat or memory.events."""
    return {key: int(value) for key, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}


def labkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """labkit in the lab's machine itself, not in one within it."""
    return subprocess.run([sys.executable, "-m", "labkit", *arguments], capture_output=True, text=True, check=True)


def cgroup(machine: Machine, name: str) -> dict[str, str]:
    """The files of a running container's cgroup, read from outside."""
    (group,) = [one["cgroup"] for one in machine.states() if one["name"] == name]
    return {
        file: machine.sh("cat", f"/sys/fs/cgroup{group}/{file}").stdout.strip()
        for file in (*FILES, "memory.events", "pids.events", "pids.current", "cpu.stat")
    }


def test_nginx_with_every_limit_serves_its_page() -> None:
    """The files hold exactly what was asked for, the published port answers, systemd-cgls shows the same processes."""
    limits = ["--memory", "256m", "--cpus", "1", "--pids-limit", "4096", "-p", "8086:80"]
    identifier = labkit("run", "-d", *limits, "localhost:5000/nginx").stdout.strip()
    try:
        group = Path("/sys/fs/cgroup/labkit") / identifier
        found = {name: (group / name).read_text().strip() for name in FILES}
        assert found == {
            "memory.max": "268435456",
            "memory.swap.max": "268435456",
            "cpu.max": "100000 100000",
            "pids.max": "4096",
        }

        def page() -> bytes:
            try:
                with urllib.request.urlopen("http://127.0.0.1:8086/", timeout=10) as answer:
                    return bytes(answer.read())
            except OSError:
                return b""

        assert b"It works" in until(page, 60)
        listed = subprocess.run(["systemd-cgls", "--no-pager", "--full", f"/labkit/{identifier}"], capture_output=True)
        assert listed.stdout.count(b"nginx") >= 2 and b"labkit-init" in listed.stdout, listed
    finally:
        labkit("rm", "--force", identifier[:12])
    assert not group.exists()


def test_300_mib_in_256_are_killed_by_the_kernel(machine: Machine) -> None:
    """Status 137, and the message says why: the limit, and memory.events' oom_kill 1."""
    done = machine.run("--memory", "256m", IMAGE, "dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1")
    assert done.returncode == 137
    assert "want of memory" in done.stderr and "oom_kill 1" in done.stderr and "256m" in done.stderr, done.stderr
    assert "next:" in done.stderr


def test_200_mib_in_256_are_not(machine: Machine) -> None:
    """The limit kills what exceeds it and nothing less."""
    done = machine.run("--memory", "256m", IMAGE, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    assert (done.returncode, "want of memory" in done.stderr) == (0, False)


def test_memory_events_and_ps_tell_of_the_kill(machine: Machine) -> None:
    """oom_kill is 1 in the cgroup of a container that survives its child's death; ended, ps says out of memory."""
    script = "dd if=/dev/zero of=/dev/null bs=300M count=1; echo $?; sleep 1000"
    machine.labkit("run", "-d", "--network", "none", "--name", "big", "--memory", "256m", IMAGE, "sh", "-c", script)
    try:
        until(lambda: table(cgroup(machine, "big")["memory.events"])["oom_kill"], 60)
        assert table(cgroup(machine, "big")["memory.events"])["oom_kill"] == 1
        machine.labkit("stop", "--time", "0", "big")
        assert "out of memory" in machine.labkit("ps", "--all").stdout
    finally:
        machine.labkit("rm", "--force", "big")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--memory", "256m"], ["268435456", "268435456", "max 100000", "max"]),
        (["--memory", "256m", "--memory-swap", "256m"], ["268435456", "0", "max 100000", "max"]),
        (["--memory", "64m", "--memory-swap", "-1", "--cpus", "1.5"], ["67108864", "max", "150000 100000", "max"]),
        (["--pids-limit", "77"], ["max", "max", "max 100000", "77"]),
        ([], ["max", "max", "max 100000", "max"]),
    ],
)
def test_the_files_hold_what_docker_would_write(machine: Machine, options: list[str], found: list[str]) -> None:
    """memory.max, memory.swap.max, cpu.max and pids.max, read from inside."""
    said = machine.said(f"cd /sys/fs/cgroup; cat {' '.join(FILES)}", *options)
    assert said.splitlines() == found


def test_little_memory_is_enough_for_little(machine: Machine) -> None:
    """The least that --memory takes, 6m, still starts a command: our own init does not eat it up."""
    assert machine.run("--memory", "6m", IMAGE, "echo", "fits").stdout == "fits\n"


def test_a_fork_bomb_meets_pids_max(machine: Machine) -> None:
    """Never more processes than the limit, pids.events counts the refusals, and rm ends all of them."""
    script = "bomb() { bomb | bomb & }; bomb; sleep 1000"
    machine.labkit("run", "-d", "--network", "none", "--name", "bomb", "--pids-limit", "40", IMAGE, "sh", "-c", script)
    try:
        until(lambda: table(cgroup(machine, "bomb")["pids.events"])["max"], 60)
        assert int(cgroup(machine, "bomb")["pids.current"]) <= 40
    finally:
        assert machine.labkit("rm", "--force", "bomb").returncode == 0


def test_cpus_slow_a_busy_loop_down(machine: Machine) -> None:
    """nr_throttled grows, and over three seconds no more CPU time passes than --cpus lets through."""
    script = "cat /sys/fs/cgroup/cpu.stat; timeout 3 sh -c 'while :; do :; done'; cat /sys/fs/cgroup/cpu.stat"
    started = time.monotonic()
    said = machine.said(script, "--cpus", "0.2")
    elapsed = time.monotonic() - started
    at_first, in_the_end = (table("usage_usec" + part) for part in said.split("usage_usec")[1:])
    assert in_the_end["nr_throttled"] > at_first["nr_throttled"]
    assert in_the_end["usage_usec"] - at_first["usage_usec"] <= 0.2 * elapsed * 1e6 + 40_000


def test_controllers_are_handed_on_for_the_time_and_taken_back(machine: Machine) -> None:
    """The root of the tree hands on cpu, memory and pids while a container runs, and nothing afterwards."""
    switch = ["cat", "/sys/fs/cgroup/cgroup.subtree_control"]
    before = machine.sh(*switch).stdout
    machine.labkit("run", "-d", "--rm", "--network", "none", "--name", "box", IMAGE, "sleep", "1000")
    during = machine.sh(*switch).stdout.split()
    machine.labkit("rm", "--force", "box")
    assert {"cpu", "memory", "pids"} <= set(during)
    assert machine.sh(*switch).stdout.strip() == before.strip() == ""
