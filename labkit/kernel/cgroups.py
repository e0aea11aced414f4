"""Floor 1: control groups, version 2 only: make, limit, read, kill, remove.

Owns: finding the one tree of version 2, turning controllers on from the top down, the
files of a cgroup, and giving a cgroup back with everything that runs in it.

Read: Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from labkit.errors import LabError, Refused, explain
from labkit.kernel import mounts


def root() -> Path:
    """Where this machine mounts version 2. Raises Refused when nowhere."""
    where = mounts.find("cgroup2")
    if where is None:
        raise Refused(
            "this machine has no cgroup v2 tree",
            why="no file system of type cgroup2 is mounted",
            next="use the lab's machine (make lab), or boot with systemd.unified_cgroup_hierarchy=1",
        )
    return where


def controllers(group: Path) -> list[str]:
    """The controllers that `group` may hand to its children."""
    return (group / "cgroup.controllers").read_text().split()


def require(needed: set[str], purpose: dict[str, str]) -> None:
    """Raise Refused unless version 2 holds these controllers here.

    purpose -- controller: the option that asked for it, for the message.
    """
    top = root()
    missing = sorted(needed - set(controllers(top)))
    if not missing:
        return
    name = missing[0]
    v1 = _version_one(name)
    why = (
        f"the controller is mounted as version 1 at {v1}, so the version 2 tree at {top} cannot have it"
        if v1
        else f"{top}/cgroup.controllers lists: {' '.join(controllers(top)) or 'none'}"
    )
    raise Refused(
        f"{purpose.get(name, 'this limit')} needs the {name} controller of cgroup v2, and this machine has none",
        why=why,
        next="run it in the lab's machine: make lab, then labkit guest exec -- labkit run ...",
    )


def _version_one(name: str) -> str | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup" and name in options.split(","):
            return left.split()[4]
    return None


def enable(group: Path, names: set[str]) -> set[str]:
    """Hand controllers to the children of `group`; return those that were not handed before.

    Raises LabError: EBUSY means that processes sit in `group` itself (the rule of no
    internal processes), and the message names them.
    """
    switch = group / "cgroup.subtree_control"
    new = names - set(switch.read_text().split())
    if new:
        _write(switch, " ".join(f"+{name}" for name in sorted(new)))
    return new


def disable(group: Path, names: set[str]) -> None:
    """Take controllers back from the children of `group`; those still in use stay."""
    for name in sorted(names):
        try:
            _write(group / "cgroup.subtree_control", f"-{name}")
        except LabError:
            continue  # EBUSY: a child hands it on to its own children


def create(group: Path) -> None:
    """mkdir makes a cgroup. Raises LabError when it exists or may not be made."""
    try:
        group.mkdir()
    except OSError as error:
        explain(error, f"cannot make the cgroup {group}")


def limit(group: Path, settings: dict[str, str]) -> None:
    """Write {file: text} into the cgroup, in the order given."""
    for name, text in settings.items():
        _write(group / name, text)


def read(group: Path, name: str) -> str:
    """The text of one file of the cgroup, without the line end."""
    return (group / name).read_text().rstrip("\n")


def read_table(group: Path, name: str) -> dict[str, int]:
    """A flat keyed file (memory.events, cpu.stat, ...) as numbers."""
    return {key: int(value) for key, value in (line.split() for line in read(group, name).splitlines())}


def processes(group: Path) -> list[int]:
    """The pids in the cgroup itself, as this pid namespace numbers them."""
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def attach(group: Path, pid: int) -> None:
    """Move a whole process into the cgroup."""
    _write(group / "cgroup.procs", str(pid))


def kill(group: Path) -> None:
    """SIGKILL for everything below `group`, forks included (cgroup.kill, Linux 5.14)."""
    _write(group / "cgroup.kill", "1")


def remove(group: Path, *, patience: float = 10.0) -> None:
    """Kill what runs below `group`, wait for it to go (seconds), and remove the tree.

    A cgroup that is gone already is fine.  Raises LabError naming who still sits in it.
    """
    if not group.is_dir():
        return
    for child in sorted((path for path in group.iterdir() if path.is_dir()), reverse=True):
        remove(child, patience=patience)
    deadline = time.monotonic() + patience
    kill(group)
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # EBUSY until the last killed process has been reaped.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                left = ", ".join(map(str, processes(group))) or "none that this pid namespace sees"
                explain(error, f"cannot remove the cgroup {group}", why=f"processes in it: {left}")
        time.sleep(0.002)


def _write(file: Path, text: str) -> None:
    try:
        fd = os.open(file, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        why = ""
        if error.errno == errno.EBUSY and file.name == "cgroup.subtree_control":
            why = f"processes sit in {file.parent} itself: {processes(file.parent)[:5]}"
        elif error.errno == errno.ENOENT:
            why = f"the controller {file.name.partition('.')[0]} is not handed to {file.parent}"
        explain(error, f"cannot write {text!r} to {file}", why=why)
