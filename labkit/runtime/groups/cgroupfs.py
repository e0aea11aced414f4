"""Floor 3: the container's cgroup, made by this runtime itself: folders in the cgroup2 tree.

Owns: where linux.cgroupsPath lies, handing controllers down to it (from the top, or from what was delegated to an
ordinary user), writing limits, standing still, killing and giving back.  The systemd driver asks the service
manager for the same.

On a machine that mounts its controllers as version 1, the tree is there without controllers: containers
without limits have their cgroup, and a limit is refused in words.

Read: cgroup-v2.rst; the OCI runtime specification, config-linux.md, "Cgroups Path".
"""

from __future__ import annotations

import os

from labkit.errors import BadInput, LabError, Refused
from labkit.kernel import cgroups
from labkit.kernel.cgroups import tree
from labkit.lean import TYPE_CHECKING
from labkit.runtime import defaults
from labkit.runtime.groups import resources as texts

if TYPE_CHECKING:
    from typing import Any

LEAF = "labkit-own"  # where an ordinary user's own processes go
DEFAULT = "labkit-runtime"  # what a relative path, and a container without one, is below


def path(config: dict[str, Any], identifier: str, *, rootless: bool = False) -> str:
    """The cgroup's folder: absolute paths from the tree's top, others below the runtime's own. Raises BadInput.

    rootless -- the runtime's own lies below the cgroup that this process is in: another one is not this user's.
    """
    given = config.get("linux", {}).get("cgroupsPath", "")
    if ".." in given.split("/"):
        raise BadInput(f"linux.cgroupsPath {given!r} leads upward", next="a path without ..", status=1)
    if given and not given.strip("/"):
        raise BadInput(f"linux.cgroupsPath {given!r} is the tree's top", why="it is everybody's", status=1,
                       next="/NAME, or nothing at all")  # fmt: skip
    where = given if given.startswith("/") else f"{DEFAULT}/{given or identifier}"
    above = own() if rootless and not given.startswith("/") else ""
    return f"{tree.top()}{above}/{where.strip('/')}"


def own() -> str:
    """The cgroup of this process, from the tree's top on; "" is the top itself."""
    with open("/proc/self/cgroup") as file:
        place = next((line[3:].strip() for line in file if line.startswith("0::")), "").rstrip("/")
    return os.path.dirname(place) if os.path.basename(place) == LEAF else place


def _begin(top: str, group: str) -> str:
    """The highest cgroup that this user may divide: the top, or the one that was delegated. Raises Refused."""
    if os.access(f"{top}/cgroup.subtree_control", os.W_OK):
        return top
    above = f"{top}{own()}"
    delegated = all(os.access(f"{above}/{file}", os.W_OK) for file in ("cgroup.subtree_control", "cgroup.procs", ""))
    if not delegated or not group.startswith(f"{above}/"):
        raise Refused(f"cannot make the cgroup {group}", why=f"{above} was not delegated to this user", status=1,
                      next="as root; or systemd-run --user --scope -p Delegate=yes labkit run ...")  # fmt: skip
    return above


def _make_room(above: str) -> None:
    """Move whoever is in a delegated cgroup into a leaf: with processes in it, it hands no controllers down.

    cgroup-v2.rst, "No Internal Process Constraint"; the leaf ends with what was delegated.
    """
    if pids := cgroups.processes(above):
        os.makedirs(f"{above}/{LEAF}", exist_ok=True)
        for pid in pids:
            cgroups.attach(f"{above}/{LEAF}", pid)


def has_limits(wanted: dict[str, Any]) -> bool:
    """Whether these resources ask for anything that a file of a cgroup has."""
    return bool(texts.files(wanted))


def create(group: str, wanted: dict[str, Any]) -> list[str]:
    """Make the cgroup with its limits and its rules for devices; what could not be kept, in words.

    Raises LabError: the cgroup is there and not empty, a controller is missing, a limit is refused.
    """
    top = tree.top()
    first = _begin(top, group)
    if others := processes(group):
        raise LabError(f"the cgroup {group} is in use", why=f"processes {others} are in it or below it",
                       next="another linux.cgroupsPath", status=1)  # fmt: skip
    found = texts.files(wanted)
    needed = texts.controllers(found)
    if needed:
        cgroups.require(needed, dict.fromkeys(needed, "a limit of linux.resources"), first)
    # Counted for every container where the machine can: memory for the message about a kill, the rest for events.
    hand_down = needed | ({"cpu", "io", "memory", "pids"} & set(cgroups.controllers(first)))
    if first != top:
        _make_room(first)
    made: list[str] = []
    try:
        _make(first, group.removeprefix(f"{first}/").split("/"), hand_down, made)
        # An ordinary user can fence nothing, and need not: in a user namespace no device node opens (mknod(2)).
        return apply(group, wanted) + (fence(group, wanted) if first == top else [])
    except BaseException:
        for folder in reversed(made):
            os.rmdir(folder)
        leave(os.path.dirname(group))
        raise


def _make(first: str, names: list[str], hand_down: set[str], made: list[str]) -> None:
    """The folders below `first`, each with the controllers of the one above; those that are new are added to `made`."""
    folder, lock = first, -1
    if names[0] == DEFAULT:
        from labkit.runtime.groups import shared

        lock = shared.enter(f"{first}/{DEFAULT}", hand_down)
    try:
        for name in names:
            cgroups.enable(folder, hand_down)
            folder = f"{folder}/{name}"
            if not os.path.isdir(folder):
                cgroups.create(folder)
                made.append(folder)
    finally:
        if lock >= 0:
            os.close(lock)


def leave(above: str) -> None:
    """Give the runtime's own folder back, if a cgroup lay in it and was the last. Raises OSError."""
    if os.path.basename(above) == DEFAULT:
        from labkit.runtime.groups import shared

        shared.leave(above)


def apply(group: str, wanted: dict[str, Any]) -> list[str]:
    """Write the limits; what could not be kept on this machine, in words. Raises LabError."""
    found = texts.files(wanted, bfq=os.path.exists(f"{group}/io.bfq.weight"))
    if not os.path.exists(f"{group}/memory.swap.max"):
        found.pop("memory.swap.max", None)  # a kernel that counts no swap (CONFIG_SWAP=n)
    # Linux 5.7 has rsvd, and no limit needs no file.
    found = {name: text for name, text in found.items()
             if (text != "max" and not name.endswith(".rsvd.max")) or os.path.exists(f"{group}/{name}")}  # fmt: skip
    memory = wanted.get("memory", {})
    if memory.get("checkBeforeUpdate") and memory.get("limit", -1) > 0:
        used = int(cgroups.read(group, "memory.current"))
        if used > memory["limit"]:
            raise LabError(f"the container uses {used} bytes, more than {memory['limit']}", status=1,
                           why="checkBeforeUpdate: a limit below it would have the kernel kill")  # fmt: skip
    cgroups.limit(group, found)
    return []


def fence(group: str, wanted: dict[str, Any]) -> list[str]:
    """Keep the rules for devices; without any, what every container may, and no more. What is not kept, in words.

    Raises LabError where they cannot be kept and would be missed, BadInput.
    """
    listed = wanted.get("devices") or defaults.DEVICE_RULES[:1]
    from labkit.kernel.cgroups import devices

    # config.json's own, and then what every container needs, as runc adds it.
    rules = devices.rules([*listed, *defaults.DEVICE_RULES[1:]])
    try:
        devices.fence(group, rules)
    except LabError as error:
        from labkit.kernel import namespaces

        # Without the program, root in the container opens every device of the machine.  Only rules that deny
        # nothing are kept all the same; and a user's container has a user namespace, where no device node opens.
        if not (rules.allow and not rules.asked) and not os.geteuid() and not namespaces.nested():
            error.status = 1
            raise
        return [f"no rules for devices are kept here: {error.what}: {error.why}"]
    return []


def remove(group: str) -> None:
    """Kill what runs in it and take it away, with the last one the runtime's own folder above. Raises LabError."""
    cgroups.remove(group)
    leave(os.path.dirname(group))


def processes(group: str) -> list[int]:
    """All pids in it and below."""
    found = []
    for folder, _, _ in os.walk(group):
        found += cgroups.processes(folder)
    return sorted(found)
