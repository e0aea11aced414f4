"""Floor 3: which of the drivers keeps a container's cgroup, and the four things that each can do.

Owns: the choice, which is made once and remembered in the container's state (`driver`): cgroupfs makes folders
itself, systemd asks the service manager, and none does without.

Read: runc(8) on --systemd-cgroup; crun(1) on --cgroup-manager.
"""

from __future__ import annotations

import os

from labkit.errors import LabError, Refused
from labkit.lean import TYPE_CHECKING
from labkit.runtime.groups import cgroupfs

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from labkit.runtime.groups.systemd import Scope

    State = dict[str, Any]
    Resources = dict[str, Any]

CGROUPFS, SYSTEMD, NONE = "cgroupfs", "systemd", "disabled"


def choose(state: State, config: dict[str, Any], driver: str, *, rootless: bool) -> None:
    """Write into a new container's state who keeps its cgroup and, if that is known yet, where. Raises BadInput.

    One that is there already is another's (`found`) until `create` has seen that nobody is in it: whatever goes wrong
    before, nothing of it may be killed or removed.
    """
    state["driver"] = driver
    state["cgroup"] = ""
    if driver == CGROUPFS:
        group = cgroupfs.path(config, state["id"], rootless=rootless)
        state["found" if os.path.isdir(group) else "cgroup"] = group
    elif driver == SYSTEMD:
        _systemd().unit(config, state["id"], rootless=rootless)  # whether the path names one at all


def create(state: State, config: dict[str, Any], *, rootless: bool) -> tuple[list[str], Scope | None]:
    """Make the cgroup with its limits: what could not be kept, in words; and what holds it until somebody is in it.

    A user to whom no cgroup was given does without one, unless a limit is asked for.  Raises LabError.
    """
    wanted: Resources = config.get("linux", {}).get("resources", {})
    try:
        if state["driver"] == SYSTEMD:
            return _scope(state, config, wanted, rootless)
        if state["driver"] != CGROUPFS:
            return [], None
        warnings = cgroupfs.create(state.get("found") or state["cgroup"], wanted)
        state["cgroup"] = state.pop("found", state["cgroup"])
        return warnings, None
    except LabError:
        if not rootless or cgroupfs.has_limits(wanted):
            raise
        state.pop("found", None)
        state.update(driver=NONE, cgroup="")
        return [], None


def _scope(state: State, config: dict[str, Any], wanted: Resources, rootless: bool) -> tuple[list[str], Scope]:
    systemd = _systemd()
    scope = systemd.Scope(config, state["id"], rootless=rootless)
    try:
        # Not before: `remove` stops the unit of this name, and when it could not be made it is somebody else's.
        state.update(cgroup=scope.group, unit=scope.name)
        return cgroupfs.apply(scope.group, wanted) + cgroupfs.fence(scope.group, wanted), scope
    except BaseException:
        scope.close()
        raise


def _systemd() -> ModuleType:
    """The other driver's module, which needs a library for D-Bus. Raises Refused."""
    try:
        from labkit.runtime.groups import systemd
    except ModuleNotFoundError as error:
        raise Refused("the systemd driver cannot be had here", why=f"{error}: it speaks D-Bus with it", status=1,
                      next="apt-get install python3-jeepney, or --cgroup-manager cgroupfs") from error  # fmt: skip
    return systemd


def apply(state: State, wanted: Resources, *, rootless: bool) -> None:
    """Change the limits of a container that lives. Raises Refused without a cgroup, LabError."""
    if not state["cgroup"]:
        raise Refused(f"container {state['id']} has no cgroup, and so no limits", status=1)
    if state["driver"] == SYSTEMD:
        systemd = _systemd()
        systemd.change(state["unit"], wanted, rootless=rootless)
    cgroupfs.apply(state["cgroup"], wanted)


def remove(state: State, *, rootless: bool) -> None:
    """Kill what runs in it, and give it back. Raises LabError."""
    if state.get("cgroup"):
        cgroupfs.remove(state["cgroup"])
    if state.get("driver") == SYSTEMD and state.get("unit"):
        systemd = _systemd()
        systemd.stop(state["unit"], rootless=rootless)
