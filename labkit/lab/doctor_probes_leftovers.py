"""Top floor: what a killed probe leaves, found by its name and given back.

Owns: the name that everything a probe makes outside its own namespaces carries
(labkit-doctor-PID-START, of the process that forks the probes), and its removal.

Read: Documentation/admin-guide/cgroup-v2.rst on removing, apparmor(7) on policy namespaces.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from labkit import paths
from labkit.errors import LabError
from labkit.kernel import cgroups, process
from labkit.kernel.ledger import Ledger, all_ledgers
from labkit.lab import doctor_probes_text as text

POLICY_NAMESPACES = Path("/sys/kernel/security/apparmor/policy/namespaces")
PATTERN = re.compile(r"labkit-doctor-(\d+)-(\d+)")


def name(pid: int | None = None) -> str:
    """What this run calls its things; a probe passes nothing and means its parent."""
    pid = pid or os.getppid()
    return f"labkit-doctor-{pid}-{process.start_time(pid) or 0}"


def ground() -> Path:
    """The nearest folder at or above paths.data() that exists: where the lab's disk space is."""
    # os.path's: False too for what this user may not look at.
    return next(path for path in (paths.data(), *paths.data().parents) if os.path.isdir(path))


def cgroup_parents() -> list[Path]:
    """Where a probe may have made its cgroup: the top, and this process's own cgroup."""
    try:
        top = cgroups.root()
    except LabError:
        return []
    own = text.own_cgroup(Path("/proc/self/cgroup").read_text())
    return list(dict.fromkeys([top, top / own.lstrip("/"), (top / own.lstrip("/")).parent]))


def sweep(*, of_the_dead: bool) -> None:
    """Remove what runs of dead processes left, or what this process's own run left.

    Goes on past what cannot be removed: it is another user's.
    """
    mine = name(os.getpid())
    for ledger in list(_ledgers()):
        if _is_meant(ledger.owner, mine, of_the_dead):
            _quietly(ledger.release_all)
    for group in _named(cgroup_parents()):
        if _is_meant(group.name, mine, of_the_dead):
            _quietly(partial(cgroups.remove, group, patience=2.0))
    for policy in _named([POLICY_NAMESPACES]):
        if _is_meant(policy.name, mine, of_the_dead):
            _quietly(policy.rmdir)  # its profiles go with it
    for folder in _named([ground()]):
        if _is_meant(folder.name, mine, of_the_dead):
            shutil.rmtree(folder, ignore_errors=True)


def _ledgers() -> Iterator[Ledger]:
    try:
        yield from all_ledgers()
    except OSError:
        return  # root's, and this is another user


def _named(parents: list[Path]) -> list[Path]:
    return [path for parent in parents if os.access(parent, os.R_OK) for path in parent.glob("labkit-doctor-*-*")]


def _is_meant(owner: str, mine: str, of_the_dead: bool) -> bool:
    found = PATTERN.fullmatch(owner)
    if found is None:
        return False
    return not process.is_alive(int(found[1]), int(found[2])) if of_the_dead else owner == mine


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except (OSError, LabError):
        pass
