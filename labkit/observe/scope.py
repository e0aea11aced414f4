"""Reading floor: which part of the machine a snapshot is of.

Owns: the three scopes, and what belongs to one: its processes, and of the rest what no process
outside holds too.

Read: pid_namespaces(7) on process 1, cgroups(7); labkit/kernel/ledger.py for what labkit made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from labkit import paths
from labkit.kernel import ledger
from labkit.kernel.mounts import find
from labkit.observe import processes
from labkit.observe.census import TITLES
from labkit.observe.held import Key
from labkit.observe.model import Link, Network, Process
from labkit.observe.mountinfo import Mount
from labkit.observe.processes import PF_KTHREAD, Stat


@dataclass(frozen=True)
class Tree:
    """A process and all its descendants, and what only they hold.

    Who is in a pid namespace whose process 1 is of the tree is of the tree too: it ends with it,
    though its parent may be elsewhere (`nsenter`, `docker exec`).
    """

    pid: int


@dataclass(frozen=True)
class Made:
    """What labkit made: what its ledger lists, its own processes with their descendants, and what only they hold."""


Scope = Tree | Made | None  # None: everything


class Chosen(NamedTuple):
    """What of the machine is in the scope."""

    processes: dict[int, Process]
    whole: bool  # everything that can be seen
    outsiders: list[Stat]  # who may hold what the scope holds
    looked: Looked
    cgroups: list[str]  # these, and all below
    places: list[str]  # of our own mount table, what is at or below these
    links: set[str]  # of our own network, these and the ports of these

    def owned(self, keys: Iterable[Key]) -> set[Key]:
        """Those of the namespaces in which no process outside the scope is."""
        left = set(keys)
        if self.whole:
            return left
        kinds = sorted({kind for kind, _ in left})
        for stat in self.outsiders:
            if not left:
                break
            shared = left.intersection(self.looked.of(stat.pid, kinds).items())
            if shared:
                # Fewer kinds to look at with the next: the first process is mostly in all that is shared.
                left -= shared
                kinds = sorted({kind for kind, _ in left})
        return left


class Looked:
    """The namespaces of processes, each link read once a snapshot: there are hundreds, and a live view takes many."""

    def __init__(self) -> None:
        self._found: dict[int, dict[str, int]] = {}

    def of(self, pid: int, kinds: Iterable[str]) -> dict[str, int]:
        """{kind: inode} as `processes.link` reads them; kinds of earlier questions may be among them."""
        known = self._found.setdefault(pid, {})
        for kind in kinds:
            if kind not in known:
                known[kind] = processes.link(pid, kind)
        return known


def choose(scope: Scope, ignored: int = 0, remembered: processes.Remembered | None = None) -> Chosen:
    """What is in the scope now.

    ignored -- pid of a process that belongs to the reading itself; remembered -- see `processes.survey`.
    """
    if scope is None:
        found = processes.read(pid for pid in processes.pids() if pid != ignored)
        return Chosen(found, True, [], Looked(), ["/"], [], set())
    stats, looked = processes.survey(remembered), Looked()
    stats.pop(ignored, None)
    parents = {pid: stat.parent for pid, stat in stats.items()}
    if isinstance(scope, Tree):
        pids = processes.descendants(scope.pid, parents)
        found, outsiders = _with_guests(pids, stats, parents, looked)
        return Chosen(found, False, outsiders, looked, _cgroups(found), [], set())
    entries = [entry for one in ledger.all_ledgers() for entry in one.entries()]
    roots = {pid for pid, stat in stats.items() if stat.name.startswith(TITLES)}
    for entry in entries:
        pid = int(entry.fields.get("pid", 0))
        if entry.kind == "process" and pid in stats and stats[pid].started == entry.fields["start"]:
            roots.add(pid)
    found, outsiders = _with_guests({pid for root in roots for pid in processes.descendants(root, parents)},
                                    stats, parents, looked)  # fmt: skip
    listed = {kind: [str(entry.fields.get("path", entry.fields.get("name", ""))) for entry in entries
                     if entry.kind == kind] for kind in ("cgroup", "mount", "link")}  # fmt: skip
    places = [*listed["mount"], str(paths.run()), str(paths.data())]
    groups = sorted({*_below_top(listed["cgroup"]), *_cgroups(found)})
    return Chosen(found, False, outsiders, looked, _topmost(groups), places, set(listed["link"]))


def _with_guests(
    pids: set[int], stats: Mapping[int, Stat], parents: Mapping[int, int], looked: Looked
) -> tuple[dict[int, Process], list[Stat]]:
    """The processes, with those that live in their pid namespaces; and all others but the kernel's own."""
    found = processes.read(sorted(pids))
    worlds = {one.namespaces.get("pid") for one in found.values() if one.inside[-1] == 1 and len(one.inside) > 1}
    rest = [stat for pid, stat in stats.items() if pid not in pids and not stat.flags & PF_KTHREAD]
    if worlds:
        guests = {stat.pid for stat in rest if looked.of(stat.pid, ["pid"])["pid"] in worlds}
        guests = {pid for guest in guests for pid in processes.descendants(guest, parents)} - pids
        found = dict(sorted({**found, **processes.read(guests)}.items()))
        rest = [stat for stat in rest if stat.pid not in guests]
    # The parent of the tree first: it is the likeliest to be in what the tree shares with others.
    above = {parents.get(pid, 0) for pid in pids}
    return found, sorted(rest, key=lambda stat: (stat.pid not in above, stat.pid))


def _cgroups(found: Mapping[int, Process]) -> list[str]:
    """The cgroups in which, and below which, nobody else is."""
    candidates = sorted({one.cgroup for one in found.values() if one.cgroup.strip("/") and ".." not in one.cgroup})
    top = find("cgroup2") if candidates else None
    if top is None:
        return []
    own = set(found)
    return _topmost([path for path in candidates if (seen := _sitting(Path(f"{top}{path}"))) and seen <= own])


def _sitting(group: Path) -> set[int]:
    """The pids in a cgroup and below it; 0 for one of another pid namespace."""
    found: set[int] = set()
    for file in group.rglob("cgroup.procs"):
        try:
            found.update(map(int, file.read_text().split()))
        except OSError:
            continue  # it went, or is threaded
    return found


def _below_top(folders: Iterable[str]) -> list[str]:
    listed = list(folders)
    top = find("cgroup2") if listed else None
    if top is None:
        return []
    return [f"/{Path(folder).relative_to(top)}" for folder in listed if Path(folder).is_relative_to(top)]


def _topmost(groups: list[str]) -> list[str]:
    """Without those that lie below another."""
    return [path for path in groups if not any(path.startswith(f"{other}/") for other in groups)]


def part_of_table(table: Iterable[Mount], places: Iterable[str]) -> tuple[Mount, ...]:
    """The mounts at these places, and below them."""
    wanted = [place.rstrip("/") for place in places]
    return tuple(m for m in table if any(m.place == place or m.place.startswith(f"{place}/") for place in wanted))


def part_of_network(network: Network, names: set[str]) -> Network:
    """The links of these names, the ports of bridges among them, and the routes by them."""
    masters = {link.index for link in network.links if link.name in names}
    links: tuple[Link, ...] = tuple(x for x in network.links if x.index in masters or x.master in masters)
    devices = {link.name for link in links}
    return network._replace(links=links, routes=tuple(way for way in network.routes if way.device in devices))
