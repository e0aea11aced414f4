"""What labkit run and labkit stats do with a container's cgroup, held against the kernel's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runtime_ground import IMAGE, Machine, until

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest


def test_stats_say_what_the_files_say(machine: Machine) -> None:
    """A container on a fifth of a CPU with 64 MiB: its share, limit and processes, as one line of JSON."""
    limits = ["--cpus", "0.2", "--memory", "64m"]
    script = "head -c 8m /dev/zero >/x; while :; do :; done"
    machine.labkit("run", "-d", "--network", "none", "--name", "busy", *limits, IMAGE, "sh", "-c", script)
    try:
        (one,) = machine.states()
        group = machine.group.parent / Path(one["cgroup"].lstrip("/"))
        until(lambda: "nr_throttled 0\n" not in (group / "cpu.stat").read_text(), 60)
        # The first program writes its 8 MiB by a fifth of a CPU: until it has ended, it is a process too.
        until(lambda: (group / "pids.current").read_text() == "2\n", 60)
        # One second of an emulated machine on a busy host may be a long one: one of five must be right.
        for _ in range(5):
            done = machine.labkit("stats", "--no-stream", "--format", "json")
            (said,) = [json.loads(line) for line in done.stdout.splitlines()]
            if 15 <= float(said["CPUPerc"].rstrip("%")) <= 25:
                break
        assert 15 <= float(said["CPUPerc"].rstrip("%")) <= 25, said
        assert (said["Name"], said["ID"], said["Container"]) == ("busy", one["id"][:12], one["id"][:12]), done
        used, _, limit = said["MemUsage"].partition(" / ")
        assert limit == "64MiB" and used.endswith("MiB"), said
        current = int((group / "memory.current").read_text())
        share = float(said["MemPerc"].rstrip("%"))
        assert 0 < share <= 100 * current / (64 << 20) + 1, said
        assert said["PIDs"] == (group / "pids.current").read_text().strip() and said["NetIO"] == "0B / 0B"
        assert machine.labkit("stats", "--no-stream", "nobody").returncode == 1
        table = machine.labkit("stats", "--no-stream", "busy").stdout.splitlines()
        assert table[0].startswith("CONTAINER ID") and table[1].split()[1] == "busy"
    finally:
        machine.labkit("rm", "--force", "busy")


def test_a_limit_that_cannot_be_leaves_nothing_behind(machine: Machine) -> None:
    """A controller that is not there, and a device that is none: the flag is named, no container stays."""
    for words, said in (
        (["--cpuset-cpus", "0"], "--cpuset-cpus needs the cpuset controller"),
        (["--device-read-bps", "/dev/null:1m"], "/dev/null is no block device"),
        (["--oom-kill-disable"], "there is no --oom-kill-disable on cgroup v2"),
    ):
        done = machine.run(*words, IMAGE, "true")
        assert done.returncode == 125 and said in done.stderr, done
    assert machine.states() == []
