"""Reading floor: a snapshot: what the kernel holds now, in one scope, as plain data.

Owns: the order of reading, and how the readers' answers are put together.  A snapshot is not
one instant: it takes milliseconds, in which processes come and go; what has gone is left out.

Read: labkit/observe/model.py for what there is; proc(5), namespaces(7), rtnetlink(7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labkit.observe import cgroups, held, mountinfo, networks, processes, visitor
from labkit.observe.held import Key
from labkit.observe.model import Network, Snapshot
from labkit.observe.mountinfo import Mount
from labkit.observe.scope import Chosen, Made, Scope, Tree, choose, part_of_network, part_of_table
from labkit.observe.visitor import Visitor
from labkit.observe.written import from_json, to_json

__all__ = ["Made", "Scope", "Tree", "Visitor", "from_json", "take", "to_json"]


def take(
    scope: Scope = None, rules: bool = False, *, descriptors: bool = False, visitor: Visitor | None = None
) -> Snapshot:
    """What the kernel holds now.

    scope -- None everything, Tree(pid), or Made().
    rules -- nft rules too; a program runs for each network namespace: some 10 ms each.
    descriptors -- also who holds namespaces by open files; a scope other than everything always has it.
    visitor -- asked for the networks, for whoever takes many snapshots.

    What this process may not see is missing: without root, the namespaces of others.
    Raises LabError when the process that visits the network namespaces fails.
    """
    chosen = choose(scope, *((visitor.pid, visitor.remembered) if visitor else ()))
    own = {kind: processes.link("self", kind) for kind in ("mnt", "net")}
    known = held.members(chosen.processes.values())
    owned = chosen.owned(known)
    here = ("mnt", own.get("mnt", 0))
    tables, roots = _tables([key for key in known if key[0] == "mnt"] + [here], known, here)
    looked = {key: tables[key] for key in tables if key in owned or chosen.whole}
    files = _files(chosen, looked, roots, descriptors or not chosen.whole)
    # Without members in the scope: the scope's if neither a process outside nor our own mount table holds it.
    extra = set(files) - set(known) - (set() if here in looked else set(held.bind_mounts(tables[here])))
    kept = owned | chosen.owned(extra)
    files = {key: paths for key, paths in files.items() if key in kept}
    spaces = held.read({key: known.get(key, []) for key in owned if key in known}, files, above=chosen.whole)
    mounts = {inode: table for (kind, inode), table in tables.items() if (kind, inode) in owned}
    origins = {inode: table for (_, inode), table in tables.items() if inode not in mounts}
    if isinstance(scope, Made) and (part := part_of_table(tables[here], chosen.places)) and here not in owned:
        mounts[here[1]] = part
    if chosen.whole:
        mounts.update(origins)  # our own, where even that is not shown by its members' links
        origins = {}
    return Snapshot(
        chosen.processes,
        spaces,
        mounts,
        cgroups.read(chosen.cgroups),
        _networks(chosen, {key: (*one.files, *_links(key, one.members)) for key, one in spaces.items()},
                  own.get("net", 0), rules, visitor),
        origins,
    )  # fmt: skip


def _links(key: Key, members: Iterable[int]) -> list[str]:
    return [f"/proc/{pid}/ns/{key[0]}" for pid in members]


def _tables(
    keys: Iterable[Key], known: Mapping[Key, list[int]], here: Key
) -> tuple[dict[Key, tuple[Mount, ...]], dict[Key, str]]:
    """The mount table of each mount namespace through one of its members, and where its root is to be seen."""
    tables: dict[Key, tuple[Mount, ...]] = {}
    roots: dict[Key, str] = {}
    for key in sorted(set(keys)):
        if key == here:
            tables[key], roots[key] = ordered(mountinfo.read()), ""
            continue
        members = known[key]
        first = held.place_of_root(members)
        for pid in [first[0], *members] if first else ():
            try:
                tables[key], roots[key] = ordered(mountinfo.read(pid)), f"/proc/{pid}/root"
                break
            except OSError:
                continue  # it ended, or changed its namespace's table for another while it was read
    return tables, roots


def ordered(mounts: list[Mount]) -> tuple[Mount, ...]:
    """Parents before children: the kernel lists in order of making, which a moved mount (pivot_root) breaks."""
    numbers = {mount.number for mount in mounts}
    seen: set[int] = set()
    waiting: dict[int, list[Mount]] = {}
    found: list[Mount] = []
    for mount in mounts:
        if mount.parent in numbers and mount.parent not in seen and mount.parent != mount.number:
            waiting.setdefault(mount.parent, []).append(mount)
            continue
        open_ = [mount]
        while open_:
            one = open_.pop(0)
            found.append(one)
            seen.add(one.number)
            open_ = waiting.pop(one.number, []) + open_
    return tuple(found)


def _files(
    chosen: Chosen, tables: Mapping[Key, tuple[Mount, ...]], roots: Mapping[Key, str], descriptors: bool
) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    answers = [held.bind_mounts(table, roots[key]) for key, table in tables.items()]
    if descriptors:
        answers.append(held.descriptors(chosen.processes))
    for answer in answers:
        for key, paths in answer.items():
            found.setdefault(key, []).extend(paths)
    return found


def _networks(
    chosen: Chosen, ways: Mapping[Key, Iterable[str]], own: int, rules: bool, asked: Visitor | None
) -> dict[int, Network]:
    places = [(inode, list(paths)) for (kind, inode), paths in ways.items() if kind == "net"]
    extra = not chosen.whole and chosen.links and own not in dict(places)
    if extra or (chosen.whole and own not in dict(places)):
        places.append((own, ["/proc/self/ns/net"]))
    if not places:
        return {}
    answer = asked.ask(places, rules) if asked else visitor.ask(places, rules)
    found = {one.inode: one for one in sorted(map(networks.network, answer))}
    if extra and own in found:
        found[own] = part_of_network(found[own], chosen.links)
    return found
