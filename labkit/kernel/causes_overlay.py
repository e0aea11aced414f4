"""Floor 1: why an overlay could not be mounted on this machine.

Owns: one finder for each condition of the kernel's fs/overlayfs/params.c and super.c.
Each takes (target, lower folders top first, upper, work, options): `stack` makes that of mount(2)'s data.

Read: Documentation/filesystems/overlayfs.rst, fs/overlayfs/params.c and super.c in the kernel's source.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from labkit.kernel import mountinfo

MOST_LAYERS = 500  # OVL_MAX_STACK in the kernel's source


class Stack(NamedTuple):
    """An overlay as it was asked for."""

    target: str
    lower: list[str]
    upper: str
    work: str
    options: set[str]

    @property
    def folders(self) -> list[str]:
        """All that are to be stacked."""
        return [*self.lower, *filter(None, (self.upper, self.work))]


def stack(arguments: tuple[Any, ...]) -> Stack:
    """What was asked for: of ("overlay", target, lower, upper, work), or of mount(2)'s own five arguments."""
    if isinstance(arguments[2], list):
        _, target, lower, upper, work = arguments
        return Stack(os.fspath(target), [os.fspath(one) for one in lower], os.fspath(upper), os.fspath(work), set())
    words = re.split(r"(?<!\\),", os.fsdecode(arguments[4] or ""))
    pairs = dict(word.partition("=")[::2] for word in words)
    lower = [_plain(one) for one in re.split(r"(?<!\\):", pairs.get("lowerdir", "")) if one]
    upper, work = _plain(pairs.get("upperdir", "")), _plain(pairs.get("workdir", ""))
    return Stack(os.fspath(arguments[1]), lower, upper, work, set(words))


def _plain(folder: str) -> str:
    return re.sub(r"\\(.)", r"\1", folder)


def folder_missing(arguments: tuple[Any, ...]) -> str | None:
    """A folder of the stack, or the mount point, that is not there."""
    asked = stack(arguments)
    for folder in [*asked.folders, asked.target]:
        if not os.path.lexists(folder):
            return f"{folder} is not a folder: it does not exist"
    return None


def no_folder(arguments: tuple[Any, ...]) -> str | None:
    """A file where a folder must be."""
    for folder in stack(arguments).folders:
        if os.path.lexists(folder) and not os.path.isdir(folder):
            return f"{folder} is not a folder"
    return None


def no_lower(arguments: tuple[Any, ...]) -> str | None:
    """Nothing to stand on."""
    return None if stack(arguments).lower else "an overlay needs at least one lower folder, and none is given"


def no_work(arguments: tuple[Any, ...]) -> str | None:
    """Writes are prepared in the work folder."""
    asked = stack(arguments)
    return f"the upper folder {asked.upper} has no work folder beside it" if asked.upper and not asked.work else None


def one_layer(arguments: tuple[Any, ...]) -> str | None:
    """A single lower folder without an upper one."""
    asked = stack(arguments)
    if asked.upper or len(asked.lower) != 1:
        return None
    return f"{asked.lower[0]} alone is no stack: there is no upper folder and no second lower one"


def too_many_layers(arguments: tuple[Any, ...]) -> str | None:
    """The kernel's limit."""
    count = len(stack(arguments).lower)
    return f"{count} lower folders; this kernel stacks {MOST_LAYERS}" if count > MOST_LAYERS else None


def other_file_system(arguments: tuple[Any, ...]) -> str | None:
    """Upper and work on two file systems: between them nothing can be renamed."""
    asked = stack(arguments)
    if os.stat(asked.upper).st_dev == os.stat(asked.work).st_dev:
        return None
    return f"{asked.upper} and {asked.work} are on two file systems, and between those nothing can be renamed"


def other_mount(arguments: tuple[Any, ...]) -> str | None:
    """Upper and work on one file system, seen through two mounts."""
    asked = stack(arguments)
    upper, work = mountinfo.where(asked.upper), mountinfo.where(asked.work)
    if upper.id == work.id:
        return None
    return f"{asked.upper} is on mount {upper.id} and {asked.work} on mount {work.id}: rename wants one mount"


def not_separate(arguments: tuple[Any, ...]) -> str | None:
    """Upper inside work, or work inside upper."""
    asked = stack(arguments)
    upper, work = os.path.realpath(asked.upper), os.path.realpath(asked.work)
    if not _within(upper, work) and not _within(work, upper):
        return None
    return f"{upper} and {work} lie in one another"


def twice(arguments: tuple[Any, ...]) -> str | None:
    """One folder as two layers."""
    seen: dict[tuple[int, int], str] = {}
    for folder in stack(arguments).folders:
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:
            return f"{folder} is two layers at once (also as {seen[about.st_dev, about.st_ino]})"
        seen[about.st_dev, about.st_ino] = folder
    return None


def overlapping(arguments: tuple[Any, ...]) -> str | None:
    """A layer inside another layer."""
    folders = [os.path.realpath(folder) for folder in stack(arguments).folders]
    for inner in folders:
        for outer in folders:
            if inner != outer and _within(inner, outer):
                return f"the layer {inner} lies inside the layer {outer}"
    return None


def upper_read_only(arguments: tuple[Any, ...]) -> str | None:
    """Nothing can be written to the upper folder."""
    upper = stack(arguments).upper
    mount = mountinfo.table().get(mountinfo.where(upper).id) if upper else None
    if mount is None or not ({"ro"} & mount.options or "ro" in mount.super):
        return None
    return f"the upper folder {upper} is on {mount.place}, which is read-only"


def too_deep(arguments: tuple[Any, ...]) -> str | None:
    """Overlay on overlay on overlay: the kernel allows two."""
    mounts = mountinfo.table()

    def depth(folder: str) -> int:
        mount = mounts.get(mountinfo.where(folder).id)
        if mount is None or mount.kind != "overlay":
            return 0
        pairs = [word.partition("=") for word in mount.super]
        below = [part for name, _, value in pairs if name in ("lowerdir", "lowerdir+", "upperdir")
                 for part in value.split(":")]  # fmt: skip
        return 1 + max((depth(one) for one in below if os.path.isdir(one)), default=0)

    for folder in stack(arguments).folders:
        if (levels := depth(folder)) >= 2:
            return f"{folder} is on an overlay that stands on another one ({levels} levels); the kernel stacks two"
    return None


def upper_in_use(arguments: tuple[Any, ...]) -> str | None:
    """With index=on, an upper or work folder serves one overlay."""
    asked = stack(arguments)
    mine = {os.path.realpath(asked.upper), os.path.realpath(asked.work)}
    for mount in mountinfo.table().values():
        if mount.kind == "overlay":
            held = {word.partition("=")[2] for word in mount.super if word.startswith(("upperdir=", "workdir="))}
            if taken := sorted(mine & held):
                return f"{taken[0]} already serves the overlay mounted on {mount.place}"
    return None


def other_origin(arguments: tuple[Any, ...]) -> str | None:
    """With index=on, the upper folder remembers the lower one it was first mounted with."""
    asked = stack(arguments)
    if "index=on" not in asked.options and "nfs_export=on" not in asked.options:
        return None
    for name in ("trusted.overlay.origin", "user.overlay.origin"):
        if asked.upper and name in os.listxattr(asked.upper):
            return f"{asked.upper} remembers ({name}) that it was first mounted on another lower folder"
    return None


def upper_on_overlay(arguments: tuple[Any, ...]) -> str | None:
    """An overlay keeps its whiteouts to itself, so that none can stand on it and write."""
    upper = stack(arguments).upper
    mount = mountinfo.table().get(mountinfo.where(upper).id) if upper else None
    if mount is None or mount.kind != "overlay":
        return None
    return f"the upper folder {upper} is itself on an overlay (mounted on {mount.place}), which can only be a lower one"


def not_to_stack_on(arguments: tuple[Any, ...]) -> str | None:
    """File systems that allow nothing to stand on them (s_stack_depth in the kernel's source)."""
    mounts = mountinfo.table()
    for folder in stack(arguments).folders:
        mount = mounts.get(mountinfo.where(folder).id)
        if mount is not None and mount.kind in ("proc", "hugetlbfs"):
            return f"{folder} is on {mount.kind}, which allows no file system on top of it"
    return None


def _within(inner: str, outer: str) -> bool:
    return f"{inner}/".startswith(outer.rstrip("/") + "/")
