"""Reading floor: the difference of two sets of mount tables.

Owns: when a mount is the same mount, which table a new mount namespace was copied from, and
putting together what changed alike.

Read: mount_namespaces(7), proc_pid_mountinfo(5), pivot_root(2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from labkit.observe.model import Change, Snapshot
from labkit.observe.mountinfo import Mount

Table = Sequence[Mount]
TREE = 4  # so many mounts that went together are told as one tree, as after pivot_root


def compare(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """The changes of mounts, in order of mount namespace and of the table."""
    for inode in sorted({*before.mounts, *after.mounts}):
        if inode in before.mounts and inode in after.mounts:
            yield from tables(before.mounts[inode], after.mounts[inode], _by_number)
        elif inode in after.mounts:
            origin = _origin(inode, before, after)
            if origin is not None:
                yield from tables(origin, after.mounts[inode], _by_content)
        # With a mount namespace all its mounts go; that is one change, of the namespace.


def _origin(inode: int, before: Snapshot, after: Snapshot) -> Table | None:
    """The table that a new mount namespace was copied from, as it was before; None where nothing tells.

    A process that was there before has left the namespace in question; a new one got it from
    its parent, or from the parent's parent.
    """
    tables = {**before.mounts, **before.origins}  # the origins last: what Made shows a part of is whole there
    member = after.namespaces.get(("mnt", inode))
    pid = member.members[0] if member and member.members else 0
    passed: set[int] = set()
    while pid in after.processes and pid not in passed:
        passed.add(pid)
        now, then = after.processes[pid], before.processes.get(pid)
        if then and then.started == now.started:
            return tables.get(then.namespaces.get("mnt", 0))
        pid = now.parent
    # Its maker is out of the scope, which shares one table with the rest of the machine at most.
    known = {*before.origins} & {*after.origins}
    return before.origins[known.pop()] if len(known) == 1 else None


def _by_number(mount: Mount) -> Hashable:
    # A number comes back after an unmount; together with what is mounted it hardly does.
    return mount.number, mount.device, mount.root, mount.kind


def _by_content(mount: Mount) -> Hashable:
    return mount.place, mount.device, mount.root, mount.kind


def tables(old: Table, new: Table, identity: Callable[[Mount], Hashable]) -> Iterator[Change]:
    """The changes from one table to another.

    identity -- by which a mount of one is found in the other; the same twice is taken in order.
    """
    if old == new:  # by far the most, on a machine with many
        return
    first, second = _numbered(old, identity), _numbered(new, identity)
    for key, mount in second.items():
        if key not in first:
            yield Change("+", "mount", mount.place, describe(mount))
    gone = [mount for key, mount in first.items() if key not in second]
    yield from _trees(gone)
    changed: dict[str, list[Mount]] = {}
    moves = {mount.number: (first[key].place, mount.place) for key, mount in second.items() if key in first}
    for key, mount in second.items():
        if key in first and (said := ", ".join(_changed(first[key], mount, moves.get(mount.parent)))):
            changed.setdefault(said, []).append(mount)
    for said, mounts in changed.items():
        if len(mounts) == 1:
            yield Change("~", "mount", mounts[0].place, said)
        else:
            yield Change("~", "mount tree", _top(mounts).place, f"{len(mounts)} mounts: {said}")


def _numbered(table: Table, identity: Callable[[Mount], Hashable]) -> dict[Hashable, Mount]:
    times: Counter[Hashable] = Counter()
    found: dict[Hashable, Mount] = {}
    for mount in table:
        key = identity(mount)
        found[key, times[key]] = mount
        times[key] += 1
    return found


def _changed(old: Mount, new: Mount, below: tuple[str, str] | None) -> Iterator[str]:
    """below -- the places, once and now, of what it is mounted on: a moved mount takes along what is on it."""
    carried = below and old.place.removeprefix(below[0].rstrip("/")) == new.place.removeprefix(below[1].rstrip("/"))
    if old.place != new.place and not carried:
        yield f"moved from {old.place}"
    if old.options != new.options:
        yield _words(old.options, new.options)
    if propagation(old) != propagation(new):
        yield f"{propagation(old)} -> {propagation(new)}"
    if old.superblock != new.superblock:
        yield f"the file system's options: {_words(old.superblock.split(','), new.superblock.split(','))}"


def _words(old: Iterable[str], new: Iterable[str]) -> str:
    first, second = list(old), list(new)
    less, more = [x for x in first if x not in second], [x for x in second if x not in first]
    return f"{','.join(less) or 'nothing'} -> {','.join(more) or 'nothing'}"


def propagation(mount: Mount) -> str:
    """private, shared, slave, unbindable, or shared and slave; the groups' numbers are left out."""
    names = {"shared": "shared", "master": "slave", "unbindable": "unbindable"}
    heads = [word.partition(":")[0] for word in mount.propagation]
    return " and ".join(names[head] for head in heads if head in names) or "private"


def describe(mount: Mount) -> str:
    """tmpfs from x, private; for a part of a file system, which folder of it."""
    part = "" if mount.root == "/" else f", its {mount.root}"
    source = "" if mount.source in (mount.kind, "none", "") else f" from {mount.source}"
    flags = ", read-only" if mount.read_only else ""
    return f"{mount.kind}{source}{part}{flags}, {propagation(mount)}"


def _trees(gone: Sequence[Mount]) -> Iterator[Change]:
    """Each mount; a large tree that went with what it was mounted on is one."""
    by_number = {mount.number: mount for mount in gone}
    groups: dict[int, list[Mount]] = {}
    for mount in gone:
        top = mount
        while top.parent in by_number and top.parent != top.number:
            top = by_number[top.parent]
        groups.setdefault(top.number, []).append(mount)
    for number, mounts in groups.items():
        top = by_number[number]
        if len(mounts) < TREE:
            yield from (Change("-", "mount", one.place, describe(one)) for one in mounts)
        else:
            yield Change("-", "mount tree", top.place, f"{len(mounts)} mounts: {top.kind}, and what was mounted below")


def _top(mounts: Sequence[Mount]) -> Mount:
    numbers = {mount.number for mount in mounts}
    return next((mount for mount in mounts if mount.parent not in numbers), mounts[0])
