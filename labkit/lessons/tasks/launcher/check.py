"""Top floor: the check of launcher.

Owns: where the program must be, where the caller must still be, and whose host name is whose.
Read: clone(2), namespaces(7), proc_pid_status(5) on NSpid.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from labkit.kernel.namespaces import KINDS, flags, inode
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import container as see


def check(launch: Callable[[list[str], int, str], int], lab: Ground) -> None:
    """Look at the program's namespaces and at the caller's, from outside."""
    name = lab.token()
    kinds = ["uts", "pid", *random.sample(["mnt", "ipc", "net", "cgroup"], 2)]
    words = ["sleep", str(lab.number(10_000, 99_999))]
    caller = lab.child(leaves=True)
    before = where(caller.pid)
    machine = host_name(lab, caller.pid)
    pid = caller.do(launch, words, flags(kinds), name)
    if moved := [kind for kind in KINDS if where(caller.pid)[kind] != before[kind]]:
        raise Wrong(f"the caller itself has moved: process {caller.pid} is now in another {', '.join(moved)} namespace")
    if (now := host_name(lab, caller.pid)) != machine:
        raise Wrong(f"the caller's own host name is now {now}: it was set before anybody was inside")
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise Wrong(f"launch() gave back {pid!r}, which is no pid")
    lab.until(lambda: command(pid) == words, what=f"process {pid} runs {command(pid)}, and not {words}")
    same = [kind for kind in kinds if inode(kind, pid) == before[kind]]
    if "pid" in same:
        raise Wrong(f"process {pid} is not process 1 of a new pid namespace: its numbers are {see.pids_inside(pid)}, "
                    "and it was born before the namespace was left")  # fmt: skip
    if same:
        raise Wrong(f"process {pid} is still in the caller's namespace of the kind {', '.join(same)}; "
                    f"asked for were {', '.join(kinds)}")  # fmt: skip
    if extra := [kind for kind in KINDS if kind not in kinds and inode(kind, pid) != before[kind]]:
        raise Wrong(f"process {pid} has a new {', '.join(extra)} namespace that nobody asked for")
    if (inside := see.pids_inside(pid)[-1]) != 1:
        raise Wrong(f"process {pid} has the number {inside} in its pid namespace, and not 1")
    if (called := host_name(lab, pid)) != name:
        raise Wrong(f"process {pid} is in a uts namespace of its own, and its host name is {called}, not {name}")


def where(pid: int) -> dict[str, int]:
    """The inode of each namespace of a process."""
    return {kind: inode(kind, pid) for kind in KINDS}


def command(pid: int) -> list[str]:
    """The words of the program that a process runs; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def host_name(lab: Ground, pid: int) -> str:
    """What a process in the uts namespace of `pid` is told."""
    return str(lab.inside(pid, ["uts"], os.uname).nodename)
