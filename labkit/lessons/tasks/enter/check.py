"""Top floor: the check of enter.

Owns: the process whose namespaces are to be entered, and the comparison of the program's with its.
Read: setns(2), pidfd_open(2), pid_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from labkit.kernel import mounts
from labkit.kernel.namespaces import flags, inode
from labkit.kernel.syscalls import call, clone3
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import container as see

OWN = ["mnt", "uts", "ipc", "net", "pid", "cgroup"]


def check(enter: Callable[[int, list[str]], int], lab: Ground) -> None:
    """Look at the program's namespaces from outside; the target's /proc is its own, as in a container."""
    token, folder = lab.token(), lab.folder()
    target = lab.child("target", leaves=True).do(settle, token, str(folder))
    lab.until(lambda: command(target)[:1] == ["sleep"], what="the target did not start")
    words = ["sleep", str(lab.number(10_000, 99_999))]
    pid = lab.child("caller", leaves=True).do(enter, target, words)
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise Wrong(f"enter() gave back {pid!r}, which is no pid")
    lab.until(lambda: command(pid) == words,
              what=f"process {pid} is not the program {words}: it runs {' '.join(command(pid)) or 'nothing'}")  # fmt: skip
    if len(see.pids_inside(pid)) < len(see.pids_inside(target)):
        raise Wrong(f"process {pid} has no number in the target's pid namespace: it existed before somebody entered")
    for kind in OWN:
        if inode(kind, pid) != inode(kind, target):
            raise Wrong(f"process {pid} is in another {kind} namespace than process {target}: "
                        f"{inode(kind, pid)} and not {inode(kind, target)}")  # fmt: skip
    # The machine cannot see this file: only who is in the target's mounts can.
    if not Path(f"/proc/{pid}/root{folder}/{token}").exists():
        raise Wrong(f"process {pid} does not see the files of process {target}: its root is another")
    if (name := os.uname().nodename) == token:
        raise Wrong(f"the machine is called {name} now")


def settle(name: str, folder: str) -> int:
    """In a child: start a process that has six namespaces, a host name and a file of its own; its pid."""
    pid = clone3(flags(OWN))
    if pid:
        return pid
    try:
        call("sethostname", name, len(name))
        mounts.propagate("/", "rprivate")
        mounts.mount("proc", "/proc", "proc")
        mounts.mount("tmpfs", folder, "tmpfs")
        Path(folder, name).touch()
        os.execvp("sleep", ["sleep", "infinity"])
    finally:
        os._exit(127)


def command(pid: int) -> list[str]:
    """The words of the program that a process runs; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
