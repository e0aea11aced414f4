"""Floor 1: the tree of cgroups: find it, make, limit, read, kill, remove.

Owns: finding the one tree of version 2, turning controllers on from the top down, the
files of a cgroup, and giving a cgroup back with everything that runs in it.

Read: Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import errno
import os
import time

from labkit.errors import LabError, NotFound, Refused
from labkit.kernel import attempts, mounts
from labkit.kernel.cgroups import events, forms
from labkit.kernel.cgroups.forms import Where
from labkit.lean import TYPE_CHECKING, contents

if TYPE_CHECKING:
    from pathlib import Path


def root() -> Path:
    """Where this machine mounts version 2. Raises Refused when nowhere."""
    from pathlib import Path

    return Path(top())


def top() -> str:
    """The same, as a text. Raises Refused."""
    where = mounts.place_of("cgroup2")
    if where is None:
        raise Refused(
            "this machine has no cgroup v2 tree",
            why="no file system of type cgroup2 is mounted",
            next="use the lab's machine (make lab), or boot with systemd.unified_cgroup_hierarchy=1",
        )
    return where


def controllers(group: Where) -> list[str]:
    """The controllers that `group` may hand to its children."""
    return _plain(group, "cgroup.controllers").split()


def _plain(group: Where, name: str) -> str:
    return contents(f"{os.fspath(group)}/{name}").decode()


def require(needed: set[str], purpose: dict[str, str], where: Where | None = None) -> None:
    """Raise Refused unless version 2 holds these controllers here.

    purpose -- controller: the option that asked for it, for the message; where -- `root()`, when it is known.
    """
    where = where or top()
    missing = sorted(needed - set(controllers(where)))
    if not missing:
        return
    from labkit.kernel import causes_cgroups

    name = missing[0]
    v1 = causes_cgroups.version_one(name)
    why = (
        f"the controller is mounted as version 1 at {v1}, so the version 2 tree at {where} cannot have it"
        if v1
        else f"{where}/cgroup.controllers lists: {' '.join(controllers(where)) or 'none'}"
    )
    raise Refused(
        f"{purpose.get(name, 'this limit')} needs the {name} controller of cgroup v2, and this machine has none",
        why=why,
        next="run it in the lab's machine: make lab, then labkit guest exec -- labkit run ...",
    )


def enable(group: Where, names: set[str]) -> set[str]:
    """Hand controllers to the children of `group`; return those that were not handed before.

    Raises LabError: EBUSY means that processes sit in `group` itself (the rule of no
    internal processes), and the message names them.
    """
    new = names - set(_plain(group, "cgroup.subtree_control").split())
    if new:
        _write(group, "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(new)))
    return new


def disable(group: Where, names: set[str]) -> None:
    """Take controllers back from the children of `group`; those still in use stay."""
    for name in sorted(names):
        try:
            _write(group, "cgroup.subtree_control", f"-{name}")
        except LabError:
            continue  # EBUSY: a child hands it on to its own children


def create(group: Where) -> None:
    """mkdir makes a cgroup. Raises LabError when it exists or may not be made."""
    try:
        os.mkdir(group)
    except OSError as error:
        attempts.teach(error, f"cannot make the cgroup {group}", "mkdir", (group,))


def limit(group: Where, settings: dict[str, str]) -> None:
    """Write {file: text} into the cgroup, in the order given; several lines are several writes (io.max)."""
    for name, text in settings.items():
        for line in text.splitlines(keepends=True):
            _write(group, name, line.removesuffix("\n") or "\n")


def read(group: Where, name: str) -> str:
    """The text of one file of the cgroup, without the line end. Raises LabError: see forms.read."""
    return forms.read(group, name)


def read_table(group: Where, name: str) -> dict[str, int]:
    """A flat keyed file (memory.events, cpu.stat, ...) as numbers. Raises LabError."""
    return forms.flat(forms.read(group, name))


def processes(group: Where) -> list[int]:
    """The pids in the cgroup itself, as this pid namespace numbers them. Raises LabError."""
    return [int(pid) for pid in forms.read(group, "cgroup.procs").split()]


def attach(group: Where, pid: int) -> None:
    """Move a whole process into the cgroup."""
    _write(group, "cgroup.procs", str(pid))


def kill(group: Where) -> None:
    """SIGKILL for everything below `group`, forks included (cgroup.kill, Linux 5.14)."""
    _write(group, "cgroup.kill", "1")


def remove(group: Where, *, patience: float = 10.0) -> None:
    """Kill what runs below `group`, wait for it to go (seconds), and remove the tree.

    A cgroup that is gone already is fine.  Raises LabError naming who still sits in it.
    """
    try:
        os.rmdir(group)  # an ended container's is empty, and there is nobody to kill
        return
    except FileNotFoundError:
        return
    except OSError:
        pass
    try:
        # At the top, once: it reaches everything below, and a threaded cgroup refuses it (EOPNOTSUPP).
        kill(group)
    except NotFound:
        return  # an empty scope's, systemd takes away at any moment
    try:
        events.wait_for(group, "cgroup.events", lambda now: not now["populated"], patience)
    except NotFound:
        return
    except LabError:
        pass  # rmdir says who is left
    _remove_empty(os.fspath(group), time.monotonic() + patience / 5)


def _remove_empty(group: str, deadline: float) -> None:
    try:
        below = sorted([entry.path for entry in os.scandir(group) if entry.is_dir()], reverse=True)
    except FileNotFoundError:
        return
    for child in below:
        _remove_empty(child, deadline)
    while True:
        try:
            os.rmdir(group)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # Empty is said a moment before the last one has let go of its cgroup.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                attempts.teach(error, f"cannot remove the cgroup {group}", "rmdir", (group,))
        time.sleep(0.002)


def write(file: Where, text: str) -> None:
    """One write to one file of a cgroup. Raises LabError; NotFound when the cgroup is gone."""
    _write(*os.path.split(os.fspath(file)), text)


def _write(group: Where, name: str, text: str) -> None:
    try:
        attempts.write(f"{os.fspath(group)}/{name}", text)
    except LabError as error:
        if not os.path.isdir(group):
            raise forms.gone(group, f"cannot write {text!r} to {name}") from error.__cause__
        raise
