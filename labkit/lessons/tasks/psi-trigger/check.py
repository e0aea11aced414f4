"""Top floor: the check of psi-trigger.

Owns: three cgroups that wait never, all the time, and a part of it.
Read: Documentation/accounting/psi.rst, "Monitoring for pressure thresholds".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from labkit.kernel.syscalls import clone3
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

WINDOW = 1_000_000  # microseconds


def check(wait: Callable[[Path, int, int, float], bool], lab: Ground) -> None:
    """Nobody waits; two are busy on one processor; one is stopped for a fifth of the time."""
    top = lab.cgroup()
    maker, caller = lab.child("maker"), lab.child("caller")
    cpu = (top / "cpuset.cpus.effective").read_text().strip().replace(",", "-").split("-")[0]

    def ask(kind: str, busy: int, stall: int, patience: float, **files: str) -> tuple[bool, float]:
        group = top / kind
        group.mkdir()
        for name, text in files.items():
            (group / name.replace("_", ".")).write_text(text)
        for _ in range(busy):
            maker.do(spin, str(group))
        begin = time.monotonic()
        try:
            answer = caller.do(wait, group / "cpu.pressure", stall, WINDOW, patience, limit=patience + 8)
        except OSError as error:
            raise Wrong(f"the kernel refused: {error.strerror}. The line is: some, microseconds of waiting, of the window"
                        ) from error  # fmt: skip
        (group / "cgroup.kill").write_text("1")
        return bool(answer), time.monotonic() - begin

    patience = lab.number(12, 20) / 10
    fired, took = ask("quiet", 0, 500_000, patience)
    if fired:
        raise Wrong(f"nobody is in the cgroup, nobody had to wait, and after {took:.1f} s it returned True")
    fired, took = ask("crowded", 2, 600_000, 6, cpuset_cpus=cpu)
    if not fired:
        raise Wrong(f"two busy processes have one processor, one of them waits at any time, and after {took:.1f} s "
                    "it returned False")  # fmt: skip
    fired, took = ask("mild", 1, 950_000, 2.5, cpu_max="80000 100000")
    if fired:
        raise Wrong("somebody had to wait for a fifth of the time, the trigger is at 95 %, and it returned True")


def spin(group: str) -> int:
    """In a child: a busy process, born in the cgroup."""
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    pid = clone3(0, cgroup_fd=folder)
    os.close(folder)
    while pid == 0:
        pass
    return pid
