"""A machine within this machine, in which all contestants run: same cgroups, same folders, nothing left.

Owns: the views of the cgroup tree.  labkit wants cgroup v2.  podman's crun refuses a machine with
v1 hierarchies and controllers in /sys/fs/cgroup/unified, and on cgroup v2 wants a right that root
in a sandbox may lack.  So a view is taken in which each of them has proved that it works; the
machine's own mounts stay as they are, since a view lies in a mount namespace of its own.

Whatever contestants make lies below one cgroup a hierarchy, in one folder, in one pid namespace.

Read: cgroup_namespaces(7), pid_namespaces(7), unshare(1).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.kernel import mounts

CGROUPS = Path("/sys/fs/cgroup")
ASIDE = "aside"  # not `unified`: there crun would see a hybrid machine, and refuse it
# In the order in which they are tried; the first is what nearly every machine has today.
VIEWS = {"v2": "cgroup v2 alone", "v1": "cgroup v1, and cgroup v2 aside (for labkit)"}
UNSHARE = ["unshare", "-m", "-C", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private", "--"]


def hierarchies() -> dict[str, Path]:
    """{mount options: where it is mounted} of each cgroup v1 hierarchy; "" is cgroup v2's."""
    found: dict[str, Path] = {}
    names = {line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    for line in mounts.lines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        place = Path(mounts.unescape(left.split(" ")[4]))
        if kind == "cgroup2":
            found.setdefault("", place)
        elif kind == "cgroup":
            words = set(options.split(","))
            name = next((name for name in names if name and set(name.split(",")) <= words), None)
            if name is not None:
                found.setdefault(f"none,{name}" if name.startswith("name=") else name, place)
    return found


@contextmanager
def cgroups() -> Iterator[list[Path]]:
    """One new cgroup in each hierarchy; they go, and what is below them."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    groups = [place / name for place in hierarchies().values()]
    try:
        for group in groups:
            group.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):  # v1's are empty at first, and nobody may enter
                if (group.parent / "cgroup.sane_behavior").exists() and (group / file).exists():
                    (group / file).write_text((group.parent / file).read_text())
        yield groups
    finally:
        for group in groups:
            remove(group)


def remove(group: Path, patience: float = 10.0) -> None:
    """Remove a cgroup and all below it; its last processes may still be dying. Raises OSError."""
    deadline = time.monotonic() + patience
    for path in [*sorted(group.rglob("*/"), reverse=True), group]:
        while True:
            try:
                path.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                break


def within(view: str, module: str, *arguments: str) -> int:
    """Run `python -m MODULE ARGUMENTS` as process 1 of a new machine; its exit status.

    It calls `arrange` before anything else.
    """
    with cgroups() as groups:
        enter = 'count=$1; shift; while [ $count -gt 0 ]; do echo $$ >"$1/cgroup.procs" || exit 9; '
        enter += 'shift; count=$((count - 1)); done; exec "$@"'
        words = ["sh", "-c", enter, "sh", str(len(groups)), *map(str, groups), *UNSHARE]
        outer = subprocess.Popen([*words, sys.executable, "-m", module, *arguments, "--view", view])
        step_aside(outer, groups)
        return outer.wait()


def step_aside(outer: subprocess.Popen[bytes], groups: list[Path]) -> None:
    """Move unshare(1) below the machine's root cgroup of v2, once the machine's process 1 has been born there.

    It waits outside, where process 1 cannot move it from, and with it in there no controller is handed on.
    """
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    while outer.poll() is None and not children.read_text():
        time.sleep(0.01)
    for group in groups:
        if (group / "cgroup.subtree_control").exists() and outer.poll() is None:
            (group / "outer").mkdir()
            (group / "outer/cgroup.procs").write_text(str(outer.pid))


def arrange(view: str) -> None:
    """Inside: mount the view, and empty folders where engines keep their locks. Raises LabError."""
    options = [name for name in hierarchies() if name]
    if view == "v2":
        # On a machine of v2 alone the place is a mount of the very same tree, and takes no second one (EBUSY).
        mounts.mount("none", CGROUPS, "tmpfs", ["mode=755"])
        mounts.mount("none", CGROUPS, "cgroup2")
        top = CGROUPS
    else:
        mounts.mount("none", CGROUPS, "tmpfs", ["mode=755"])
        for name in options:
            folder = CGROUPS / name.removeprefix("none,name=")
            folder.mkdir()
            mounts.mount("none", folder, "cgroup", name.split(","))
        top = CGROUPS / ASIDE
        top.mkdir()
        mounts.mount("none", top, "cgroup2")
    # A cgroup hands controllers on only while no process is in itself (the root of the machine excepted).
    (top / "bench").mkdir()
    (top / "bench/cgroup.procs").write_text(str(os.getpid()))
    while (top / "cgroup.procs").read_text():  # step_aside, outside
        time.sleep(0.01)
    for place in ("/run", "/dev/shm"):
        mounts.mount("none", place, "tmpfs", ["mode=755"])
