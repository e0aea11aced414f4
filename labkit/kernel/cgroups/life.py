"""Floor 1: what happens to a cgroup's processes: born inside, moved, frozen; and whose it is.

Owns: the ways in (by birth, or moved), making room for controllers (no internal processes),
giving a cgroup to an ordinary user, and standing still.

Read: Documentation/admin-guide/cgroup-v2.rst, "Organizing Processes and Threads", "Delegation"
and cgroup.freeze; CLONE_INTO_CGROUP in clone(2).
"""

from __future__ import annotations

import os

from labkit.errors import LabError
from labkit.kernel import attempts, process, syscalls
from labkit.kernel.cgroups import events, tree
from labkit.kernel.cgroups.forms import Where
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path
    from typing import Any

# Which files of a cgroup belong to whoever it is given to: the kernel itself lists them.
DELEGATE = "/sys/kernel/cgroup/delegate"
USUAL = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")  # before Linux 4.15


def born(group: Where) -> int:
    """Fork a child that is born inside the cgroup: 0 in the child, its pid in the parent, like os.fork.

    It has never been anywhere else, so that not one page or microsecond of it is counted elsewhere
    (CLONE_INTO_CGROUP, Linux 5.7).  Raises LabError; Threaded in a process with several threads.
    """
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return syscalls.clone3(0, cgroup_fd=fd)
        finally:
            os.close(fd)
    except OSError as error:
        # The kernel's conditions are those of a move into cgroup.procs.
        file = f"{os.fspath(group)}/cgroup.procs"
        attempts.teach(error, f"cannot start a process in {group}", "cgroup.procs", (file, "0"))


def start(group: Where, *words: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a program that puts itself into the cgroup before it becomes WORDS; works in a threaded process too.

    options -- those of subprocess.Popen.  A cgroup that takes no process shows as exit status 125.
    """
    import subprocess  # costs 5 ms, and `labkit run` needs none of it

    enter = 'echo 0 >"$0/cgroup.procs" || exit 125; exec "$@"'
    return subprocess.Popen(["/bin/sh", "-c", enter, str(group), *words], **options)


def move(source: Where, target: Where, *, attempts: int = 100) -> list[int]:
    """Move every process of `source` itself into `target`; the pids that were moved.

    Processes that fork meanwhile are followed.  One that ends meanwhile, and kernel threads,
    which stay, are left out.  Raises LabError, for a process of another pid namespace too: it has no number here.
    """
    moved: list[int] = []
    for _ in range(attempts):
        left = [pid for pid in tree.processes(source) if pid not in moved]
        if not left:
            return moved
        for pid in left:
            if pid == 0:  # written into cgroup.procs, 0 would be the writer
                raise LabError(
                    f"cannot empty {source}",
                    why="a process in it is outside of this pid namespace: its cgroup.procs shows 0 for it",
                    next="move it from the pid namespace above, where it has a number",
                )
            try:
                tree.attach(target, pid)
            except LabError:
                if process.of_the_kernel(pid) is False:
                    raise
            moved.append(pid)
    raise LabError(
        f"cannot empty {source}", why="its processes fork faster than they are moved", next="freeze it first"
    )


def nest(group: Where, names: set[str], *, leaf: str = "own") -> Path:
    """Let `group` hand controllers on although processes sit in it: they move into `group/leaf` first.

    Returns the leaf.  This is the rule of no internal processes, obeyed.  Raises LabError.
    """
    from pathlib import Path

    below = Path(group) / leaf
    if not below.is_dir():
        tree.create(below)
    move(group, below)
    tree.enable(group, names)
    return below


def delegate(group: Where, uid: int, gid: int = -1) -> list[Path]:
    """Give the cgroup to an ordinary user: they may then make, limit and fill cgroups below it.

    The limits of `group` itself stay root's.  Returns what changed hands.  Raises LabError.
    """
    from pathlib import Path

    group, listed = Path(group), Path(DELEGATE)
    names = listed.read_text().split() if listed.exists() else list(USUAL)
    given = [group, *(group / name for name in names if (group / name).exists())]
    for path in given:
        try:
            os.chown(path, uid, gid)
        except OSError as error:
            attempts.teach(error, f"cannot give {path} to user {uid}", path.name, (path, ""))
    return given


def freeze(group: Where, *, seconds: float = 10.0) -> None:
    """Let everything below stand still, and return when it does.

    Raises LabError after `seconds`; then it goes on.
    """
    _stand(group, 1, seconds)


def thaw(group: Where, *, seconds: float = 10.0) -> None:
    """Let everything below go on, and return when it does. Raises LabError: a cgroup above may hold it frozen."""
    _stand(group, 0, seconds)


def _stand(group: Where, wanted: int, seconds: float) -> None:
    tree.write(f"{os.fspath(group)}/cgroup.freeze", str(wanted))
    above = next((one for one in _above(os.fspath(group)) if _frozen(one)), None) if not wanted else None
    if above is not None:
        raise LabError(f"{group} stays frozen", why=f"{above} above it is frozen", next=f"thaw {above}")
    word = "frozen" if wanted else "thawed"
    try:
        events.wait_for(
            group, "cgroup.events", lambda now: now["frozen"] == wanted, seconds, what=f"{group} is not {word} yet"
        )
    except BaseException:
        if wanted:  # or it would stand still some time later, and nobody know of it
            tree.write(f"{os.fspath(group)}/cgroup.freeze", "0")
        raise


def _above(group: str) -> list[str]:
    parent = os.path.dirname(group)
    return [] if parent == group else [parent, *_above(parent)]


def _frozen(group: str) -> bool:
    try:
        with open(f"{group}/cgroup.freeze") as file:
            return file.read().strip() == "1"
    except OSError:
        return False
