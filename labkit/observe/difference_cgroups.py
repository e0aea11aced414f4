"""Reading floor: the difference of two cgroup trees.

Owns: that a limit is a change, and a counter only when asked for: it moves on by itself.

Read: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labkit.observe.model import Cgroup, Change, Snapshot

# A new cgroup is said to have what somebody set, not what every cgroup begins with.
DEFAULTS = frozenset(("", "0", "max", "max 100000", "100", "default 100", "domain", "member"))


def compare(before: Snapshot, after: Snapshot, *, counters: bool) -> Iterator[Change]:
    """The changes of cgroups and their limits, in order of path."""
    for path in sorted({*before.cgroups, *after.cgroups}):
        old, new = before.cgroups.get(path), after.cgroups.get(path)
        if new is None:
            yield Change("-", "cgroup", path, "")
        elif old is None:
            yield Change("+", "cgroup", path, _set(new))
        else:
            yield from _values("limit", path, old.limits, new.limits)
            if old.controllers != new.controllers:
                was, now = " ".join(old.controllers) or "none", " ".join(new.controllers) or "none"
                yield Change("~", "cgroup", path, f"controllers {was} -> {now}")
            if counters:
                yield from _values("counter", path, old.counters, new.counters)


def _set(group: Cgroup) -> str:
    return ", ".join(f"{name} {text}" for name, text in sorted(group.limits.items()) if text not in DEFAULTS)


def _values(kind: str, path: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    # A file comes with its controller, which is told by itself.
    for name in sorted({*old} & {*new}):
        if old[name] != new[name]:
            was, now = str(old[name]) or "nothing", str(new[name]) or "nothing"
            yield Change("~", kind, f"{path.rstrip('/')}/{name}", f"{was} -> {now}")
