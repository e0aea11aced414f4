"""Reading floor: the difference of two snapshots, as a list of changes in a fixed order.

Owns: what counts as a change of processes and namespaces, and the order of all changes.
Mounts, networks and cgroups have files of their own.

Read: labkit/observe/model.py; capabilities(7), seccomp(2) for the fields of a process.
"""

from __future__ import annotations

from collections.abc import Iterator

from labkit.kernel.namespaces import KINDS
from labkit.observe import difference_cgroups, difference_mounts, difference_networks
from labkit.observe.model import Change, Namespace, Process, Snapshot
from labkit.observe.sentences import across, count, named, words

__all__ = ["compare", "count", "words"]

# Of a process: field, its word, and how to show a value.  What is missing here moves on by itself (state,
# threads) or says the same in another way (parent: an orphan's changes when the parent ends).
FIELDS = (
    ("name", "name", str),
    ("command", "command", " ".join),
    ("uid", "uid", str),
    ("gid", "gid", str),
    ("capabilities", "capabilities", "{:016x}".format),
    ("seccomp", "seccomp", ("none", "strict", "filter").__getitem__),
    ("no_new_privileges", "no_new_privileges", {False: "no", True: "yes"}.__getitem__),
    ("cgroup", "cgroup", lambda path: path or "none"),
)
ORDER = (
    *("mount", "mount tree", *(f"{kind.oci} namespace" for kind in KINDS.values())),
    *("cgroup", "limit", "counter", "link", "address", "route", "rule", "process"),
)
SIGNS = "+~-"


def compare(before: Snapshot, after: Snapshot, *, counters: bool = False) -> list[Change]:
    """What appeared (+), changed (~) and went (-), always in the same order.

    A new mount namespace is a copy, so that its mounts are compared with the table that it was copied from;
    a new network namespace has a loopback device, which is no change.

    counters -- also the numbers that move on by themselves (memory.current, cpu.stat).
    """
    another = _replaced(before, after)
    # What a namespace held goes with it: what stands under its inode now is all new.
    gone = [Change("-", _kind(before.namespaces[key]), _name(before.namespaces[key]), "") for key in sorted(another)]
    before = before._replace(
        namespaces={key: one for key, one in before.namespaces.items() if key not in another},
        mounts={inode: table for inode, table in before.mounts.items() if ("mnt", inode) not in another},
        networks={inode: one for inode, one in before.networks.items() if ("net", inode) not in another},
    )
    changes = [
        *difference_mounts.compare(before, after),
        *gone,
        *_namespaces(before, after),
        *difference_cgroups.compare(before, after, counters=counters),
        *difference_networks.compare(before, after),
        *_processes(before, after),
    ]
    # A stable sort: within a kind and a sign, each part's own order stays.
    return sorted(changes, key=lambda change: (ORDER.index(change.kind), SIGNS.index(change.sign)))


def _replaced(before: Snapshot, after: Snapshot) -> set[tuple[str, int]]:
    """Namespaces whose inode's number has passed to another one meanwhile."""
    return {
        key
        for key in before.namespaces.keys() & after.namespaces.keys()
        if not _same(before.namespaces[key], after.namespaces[key], before, after)
    }


def _same(old: Namespace, new: Namespace, before: Snapshot, after: Snapshot) -> bool:
    if old.unique and new.unique:
        return old.unique == new.unique
    # Older kernels tell by who is in it and what holds it: nobody in common means another one.
    first, second = (
        {(pid, snapshot.processes[pid].started) for pid in space.members if pid in snapshot.processes}
        for space, snapshot in ((old, before), (new, after))
    )
    return not first or not second or not first.isdisjoint(second) or not {*old.files}.isdisjoint(new.files)


def _namespaces(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for key in sorted({*before.namespaces, *after.namespaces}):
        old, new = before.namespaces.get(key), after.namespaces.get(key)
        if old is None and new is not None:
            yield Change("+", _kind(new), _name(new), _who(new, after))
        elif new is None and old is not None:
            yield Change("-", _kind(old), _name(old), "")
        elif old and new and old.files != new.files:
            came, went = sorted({*new.files} - {*old.files}), sorted({*old.files} - {*new.files})
            said = [f"held by {path}" for path in came] + [f"no more held by {path}" for path in went]
            yield Change("~", _kind(new), _name(new), ", ".join(said))


def _kind(space: Namespace) -> str:
    return f"{KINDS[space.kind].oci} namespace"


def _name(space: Namespace) -> str:
    return f"{space.kind}:[{space.inode}]"


def _who(space: Namespace, snapshot: Snapshot) -> str:
    inside = [named(snapshot.processes[pid]) for pid in space.members if pid in snapshot.processes]
    parts = [f"of {', '.join(inside[:3])}" + (f" and {len(inside) - 3} more" if len(inside) > 3 else "")] * bool(inside)
    parts += [f"held by {path}" for path in space.files]
    return ", ".join(parts) or "held by what is in it"


def _processes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    old, new = (
        {(one.pid, one.started): one for one in snapshot.processes.values() if not _is_kernels(one)}
        for snapshot in (before, after)
    )
    for key in sorted({*old, *new}):
        if key not in old:
            yield Change("+", "process", named(new[key]), across(new[key]))
        elif key not in new:
            yield Change("-", "process", named(old[key]), across(old[key]))
        elif said := list(_fields(old[key], new[key])):
            yield Change("~", "process", named(new[key]), ", ".join(said))


def _is_kernels(process: Process) -> bool:
    """Whether it is a thread of the kernel's own; these come, go and rename themselves as work does."""
    first = 2 in (process.pid, process.parent) and len(process.inside) == 1  # kthreadd and its children
    return first and not process.command and process.state != "Z"


def _fields(old: Process, new: Process) -> Iterator[str]:
    if new.state == "Z" != old.state:
        # The rest of what a dead process says is what it has no more.
        yield "ended, not yet reaped by its parent"
        return
    for field, word, show in FIELDS:
        first, second = getattr(old, field), getattr(new, field)
        if first != second:
            yield f"{word} {show(first) or 'none'} -> {show(second) or 'none'}"
    for kind in KINDS:
        left, entered = old.namespaces.get(kind), new.namespaces.get(kind)
        if left and entered and left != entered:
            yield f"another {KINDS[kind].oci} namespace: {entered}"
