"""Top floor: probes of cgroup v2: the tree, each controller, delegation.

Owns: a throw-away cgroup in which a limit of each controller is really set and read back.
It is written into the ledger first.  A controller that the top offers and does not hand on
is left alone and said so: handing it on changes every cgroup of the machine, and switching
cpuset on rewrites the kernel's own code (cpusets_enabled_key), during which an emulated
machine of two processors died ("Oops: int3" in __alloc_pages, Linux 6.12 under QEMU's TCG).

Read: Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel import cgroups
from labkit.kernel.ledger import Ledger
from labkit.lab import doctor_probes_leftovers as leftovers
from labkit.lab import doctor_probes_text as text
from labkit.lab.doctor_probes import Probe, Seen, why
from labkit.lab.doctor_probes_namespaces import AS_ROOT, NOBODY

# controller: the file to set a limit in (a pattern: page sizes differ), the limit, as read back.
# An io limit names a device; that its file is there is all that holds on every machine.
LIMITS = {
    "cpuset": ("cpuset.cpus", "0"),
    "cpu": ("cpu.max", "50000 100000"),
    "io": ("io.max", ""),
    "memory": ("memory.max", "67108864"),
    "hugetlb": ("hugetlb.*.max", "0"),
    "pids": ("pids.max", "100"),
}
DELEGATED = {"memory", "pids"}
KEYS = ("cgroup2", *(f"cgroup.{name}" for name in LIMITS), "delegation")


def everything() -> dict[str, Seen]:
    """The tree, each controller, and handing them on."""
    older = text.version_one(Path("/proc/self/mountinfo").read_text())
    try:
        top = cgroups.root()
    except LabError as error:
        return {key: Seen("missing", _elsewhere(older, key) or why(error)) for key in KEYS}
    offered = cgroups.controllers(top)
    extra = f"; version 1 has {', '.join(sorted(older))}" if older else ""
    seen = {"cgroup2": Seen("ok", f"mounted at {top}, offers {' '.join(offered) or 'no controller'}{extra}")}
    for name in LIMITS:
        if name not in offered:
            seen[f"cgroup.{name}"] = Seen("missing", _elsewhere(older, name) or f"{top} does not offer it")
    rest = [name for name in LIMITS if name in offered]
    return seen | (_as_root(top, rest) if os.geteuid() == 0 else _as_user(top, rest))


def _elsewhere(older: dict[str, str], key: str) -> str:
    name = key.removeprefix("cgroup.")
    name = "blkio" if name == "io" else name  # its name in version 1
    return f"mounted as version 1 at {older[name]}" if name in older else ""


@contextmanager
def _throw_away(top: Path) -> Iterator[Path]:
    """A new cgroup below the top that has the controllers which the top hands on, and goes again."""
    group = top / leftovers.name()
    ledger = Ledger(leftovers.name())
    ledger.record("cgroup", path=str(group))
    try:
        cgroups.create(group)
        yield group
    finally:
        ledger.release_all()


def _as_root(top: Path, offered: list[str]) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    try:
        with _throw_away(top) as group:
            for name in offered:
                handed = name in cgroups.controllers(group)
                seen[f"cgroup.{name}"] = (
                    _set(group, name)
                    if handed
                    else Seen("ok", f"offered at {top}; not handed on, so no limit was tried")
                )
            seen["delegation"] = _delegate(group, NOBODY)
    except (LabError, OSError) as error:
        keys = [*(f"cgroup.{name}" for name in offered), "delegation"]
        seen = {key: Seen("missing", f"no cgroup can be made: {why(error)}") for key in keys} | seen
    return seen


def _set(group: Path, name: str) -> Seen:
    pattern, value = LIMITS[name]
    file = next(iter(sorted(group.glob(pattern))), None)
    if file is None:
        return Seen("missing", f"offered, but a cgroup with it has no {pattern}")
    if not value:
        return Seen("ok", f"{file.name} is there")
    try:
        cgroups.limit(group, {file.name: value})
        held = cgroups.read(group, file.name)
    except (LabError, OSError) as error:
        return Seen("missing", f"{file.name} takes no limit: {why(error)}")
    return Seen("ok", f"{file.name} was set") if held == value else Seen("missing", f"{file.name} holds {held}")


def _delegate(group: Path, user: int) -> Seen:
    """Give the cgroup to a user, who makes a child of it with memory and pids."""
    have = DELEGATED & set(cgroups.controllers(group))
    if have != DELEGATED:
        lacks = " and no ".join(sorted(DELEGATED - have))
        state = "limited" if set(cgroups.controllers(group.parent)) >= DELEGATED else "missing"
        return Seen(state, f"not tried: {group.parent} hands on no {lacks}")
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(group / name, user, user)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            status = 0 if _hand_on(group) else 1
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1] != 0:
        return Seen("missing", f"uid {user} could not make a child of a cgroup given to it")
    return Seen("ok", f"uid {user} handed on memory and pids in a cgroup given to it")


def _hand_on(group: Path) -> bool:
    """Make a child with memory and pids below `group`; remove it. Raises LabError, OSError."""
    child = group / "child"
    new = cgroups.enable(group, DELEGATED)
    try:
        cgroups.create(child)
        try:
            return set(cgroups.controllers(child)) >= DELEGATED
        finally:
            child.rmdir()
    finally:
        cgroups.disable(group, new)


def _as_user(top: Path, offered: list[str]) -> dict[str, Seen]:
    """Without root: only below a cgroup that somebody gave to this user can one be made."""
    user = os.geteuid()
    own = top / text.own_cgroup(Path("/proc/self/cgroup").read_text()).lstrip("/")
    # Processes may sit only in leaves, so the one with room for a child is ours or the next above.
    place = next((path for path in (own, own.parent) if path.is_relative_to(top) and os.access(path, os.W_OK)), None)
    words = f"offered at {top}, not to uid {user}"
    seen = {f"cgroup.{name}": Seen("limited", words, AS_ROOT) for name in offered}
    if place is None:
        return seen | {"delegation": Seen("missing", f"no cgroup is given to uid {user}", AS_ROOT)}
    group = place / leftovers.name()
    try:
        cgroups.create(group)
        try:
            given = cgroups.controllers(group)
            for name in offered:
                if name in given:
                    found = _set(group, name)
                    seen[f"cgroup.{name}"] = Seen("limited", f"{found.found} below {place} only", AS_ROOT)
            if not set(given) >= DELEGATED:
                return seen | {"delegation": Seen("missing", f"{place} hands on {' '.join(given) or 'no controller'}")}
            good = _hand_on(group)
        finally:
            group.rmdir()
    except (LabError, OSError) as error:
        return seen | {"delegation": Seen("missing", f"{why(error)} at {place}", AS_ROOT)}
    return seen | {"delegation": Seen("ok", f"handed on below {place}") if good else Seen("missing", "not handed on")}


PROBES = {"cgroups": Probe(KEYS, everything)}
