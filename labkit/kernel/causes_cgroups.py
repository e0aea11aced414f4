"""Floor 1: why a cgroup could not be made, written to or removed on this machine.

Owns: one finder for each condition of the kernel's cgroup/cgroup.c.  The arguments of a
write are (path, text), those of mkdir and rmdir (path,).

Read: Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from labkit.kernel import mountinfo

Arguments = tuple[Any, ...]


def named(pids: list[str]) -> str:
    """Processes with their names: "812 (sleep), 813 (sh)", at most five."""
    words = []
    for pid in pids[:5]:
        try:
            words.append(f"{pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})")
        except OSError:
            words.append(pid)
    return ", ".join(words) + (f" and {len(pids) - 5} more" if len(pids) > 5 else "")


def _group(arguments: Arguments) -> Path:
    return Path(arguments[0]).parent


def _words(group: Path, name: str) -> list[str]:
    return (group / name).read_text().split()


def _names(arguments: Arguments, sign: str) -> list[str]:
    return [word[1:] for word in arguments[1].split() if word.startswith(sign)]


# --- cgroup.subtree_control -----------------------------------------------------------


def processes_inside(arguments: Arguments) -> str | None:
    """No internal processes: a cgroup has them, or hands controllers on."""
    group = _group(arguments)
    sitting = _words(group, "cgroup.procs")
    if not _names(arguments, "+") or not sitting:
        return None
    return f"processes sit in {group} itself, and a cgroup has processes or hands controllers on: {named(sitting)}"


def handed_on_below(arguments: Arguments) -> str | None:
    """A child hands the controller on."""
    for name in _names(arguments, "-"):
        children = [path for path in _group(arguments).iterdir() if path.is_dir()]
        below = [str(path) for path in children if name in _words(path, "cgroup.subtree_control")]
        if below:
            return f"{', '.join(below[:4])} hands {name} on to its own children"
    return None


def controller_not_handed(arguments: Arguments) -> str | None:
    """The controller does not come down to this cgroup; found is where it stops."""
    group = _group(arguments)
    for name in _names(arguments, "+"):
        if name in _words(group, "cgroup.controllers"):
            continue
        above = group
        while (above / "cgroup.controllers").exists() and name not in _words(above, "cgroup.controllers"):
            above = above.parent
        if (above / "cgroup.controllers").exists():
            return f"{name} does not reach {group}: {above} has it and does not hand it on"
        held = version_one(name)
        return f"{name} is mounted as version 1 at {held}" if held else f"no cgroup above {group} has {name}"
    return None


def version_one(name: str) -> str | None:
    """Where a controller is mounted as version 1; None when it is not."""
    return next((mount.place for mount in mountinfo.table().values()
                 if mount.kind == "cgroup" and name in mount.super), None)  # fmt: skip


def unknown_controller(arguments: Arguments) -> str | None:
    """A word that is no controller of this kernel, or lacks its sign."""
    names = {line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines()[1:]} | {"io"}
    for word in arguments[1].split():
        if word[:1] not in ("+", "-"):
            return f"{word!r} begins with neither + nor -"
        if word[1:] not in names:
            return f"this kernel has no controller {word[1:]!r}"
    return None


# --- cgroup.procs ---------------------------------------------------------------------


def target_hands_on(arguments: Arguments) -> str | None:
    """No internal processes, from the other side."""
    handed = _words(_group(arguments), "cgroup.subtree_control")
    if not handed:
        return None
    return f"{_group(arguments)} hands {' '.join(handed)} on to its children, and so has no processes of its own"


def domain_invalid(arguments: Arguments) -> str | None:
    """A cgroup below a threaded one that has not become threaded."""
    kind = " ".join(_words(_group(arguments), "cgroup.type"))
    return f"{_group(arguments)} is of type {kind!r}: above it is a threaded cgroup" if "invalid" in kind else None


def thread_to_another_domain(arguments: Arguments) -> str | None:
    """Threads of one process stay within one threaded tree."""
    kind = " ".join(_words(_group(arguments), "cgroup.type"))
    if kind == "threaded":
        return None
    return f"{_group(arguments)} is of type {kind!r}: a single thread stays within the threaded tree of its process"


def no_number(arguments: Arguments) -> str | None:
    """cgroup.procs takes a pid."""
    return None if arguments[1].strip().isdigit() else f"{arguments[1]!r} is not a process's number"


def no_such_process(arguments: Arguments) -> str | None:
    """A pid that nobody has."""
    text = arguments[1].strip()
    return None if os.path.isdir(f"/proc/{text}") else f"there is no process {text}"


def ancestor_not_writable(arguments: Arguments) -> str | None:
    """Delegation: who moves a process must be able to write the common ancestor's cgroup.procs."""
    if not os.access(arguments[0], os.W_OK):
        return None
    pid = arguments[1].strip()
    pid = "self" if pid == "0" else pid
    line = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    top = next(mount.place for mount in mountinfo.table().values() if mount.kind == "cgroup2")
    start = Path(top) / line[3:].lstrip("/")
    common = Path(os.path.commonpath([start, _group(arguments)]))
    if os.access(common / "cgroup.procs", os.W_OK):
        return None
    return (
        f"process {pid} comes from {start}; the nearest cgroup above both is {common}, "
        f"and user {os.geteuid()} may not write its cgroup.procs"
    )


# --- other files, mkdir, rmdir --------------------------------------------------------


def not_ones_own(arguments: Arguments) -> str | None:
    """A file of the cgroup that belongs to somebody else."""
    if os.access(arguments[0], os.W_OK):
        return None
    return f"{arguments[0]} belongs to user {os.stat(arguments[0]).st_uid}, and this is user {os.geteuid()}"


def read_only(arguments: Arguments) -> str | None:
    """The cgroup tree is mounted read-only, as in a container."""
    mount = mountinfo.table().get(mountinfo.where(os.fspath(arguments[0])).id)
    return f"the cgroup tree on {mount.place} is mounted read-only" if mount and "ro" in mount.options else None


def no_controller(arguments: Arguments) -> str | None:
    """A limit's file is there only where its controller is handed down."""
    path = Path(arguments[0])
    if not path.parent.is_dir() or path.exists() or path.name.startswith("cgroup."):
        return None
    return f"the controller {path.name.partition('.')[0]} is not handed to {path.parent}"


def no_group(arguments: Arguments) -> str | None:
    """The cgroup itself is not there."""
    path = Path(arguments[0])
    return None if path.parent.is_dir() else f"there is no cgroup {path.parent}"


def removed(arguments: Arguments) -> str | None:
    """ENODEV: a file that was opened before its cgroup was removed."""
    return (
        None if Path(arguments[0]).exists() else f"the cgroup {_group(arguments)} has been removed since it was opened"
    )


def only_threaded(arguments: Arguments) -> str | None:
    """A cgroup becomes threaded; there is no way back and nothing else."""
    return (
        None if arguments[1].strip() == "threaded" else f"{arguments[1]!r}: a cgroup's type changes to 'threaded' only"
    )


def threaded_with_domain_controllers(arguments: Arguments) -> str | None:
    """A cgroup that hands on what counts whole processes does not become threaded, nor do its children."""
    for group in (_group(arguments), _group(arguments).parent):
        handed = _words(group, "cgroup.subtree_control") if (group / "cgroup.type").exists() else []
        domain = [name for name in handed if name not in ("cpu", "cpuset", "pids", "perf_event")]
        if domain:
            return f"{group} hands {' '.join(domain)} on, which counts whole processes"
    return None


def not_a_value(arguments: Arguments) -> str | None:
    """Neither a number nor max."""
    text = arguments[1].strip()
    if text == "max" or text.lstrip("-").isdigit():
        return None
    return f"{text!r} is neither a whole number nor 'max'"


def out_of_range(arguments: Arguments) -> str | None:
    """A number that the file does not take."""
    text = arguments[1].strip()
    return f"{text} is out of the range of {Path(arguments[0]).name}" if text.lstrip("-").isdigit() else None


def _ancestors(path: Path) -> list[Path]:
    return [group for group in path.parents if (group / "cgroup.procs").exists()]


def too_deep(arguments: Arguments) -> str | None:
    """cgroup.max.depth of a cgroup above."""
    for level, group in enumerate(_ancestors(Path(arguments[0])), 1):
        file = group / "cgroup.max.depth"
        most = file.read_text().strip() if file.exists() else "max"
        if most != "max" and level > int(most):
            return f"{file} is {most}, and this would be level {level} below it"
    return None


def too_many(arguments: Arguments) -> str | None:
    """cgroup.max.descendants of a cgroup above."""
    for group in _ancestors(Path(arguments[0])):
        file = group / "cgroup.max.descendants"
        most = file.read_text().strip() if file.exists() else "max"
        count = next(int(line.split()[1]) for line in (group / "cgroup.stat").read_text().splitlines()
                     if line.startswith("nr_descendants"))  # fmt: skip
        if most != "max" and count >= int(most):
            return f"{file} is {most}, and {count} there are"
    return None


def has_children(arguments: Arguments) -> str | None:
    """A cgroup with cgroups in it stays."""
    children = sorted(path.name for path in Path(arguments[0]).iterdir() if path.is_dir())
    return f"cgroups are in it: {', '.join(children[:5])}" if children else None


def has_processes(arguments: Arguments) -> str | None:
    """A cgroup with processes in it stays."""
    sitting = _words(Path(arguments[0]), "cgroup.procs")
    return f"processes sit in it: {named(sitting)}" if sitting else None
