"""Floor 3: the container's root, from a folder of the machine's to the / of a process.

Owns: the order of the four steps.  Private first, so that nothing of this reaches the machine; the
root; the mounts on it; the pivot, after which the machine's files cannot be named any more; and last
what would stand in the way of the earlier ones.

Read: mount_namespaces(7), pivot_root(2); the OCI runtime specification, config.md, "Root" and "Mounts".
"""

from __future__ import annotations

import os

from labkit.errors import LabError, NotFound, Refused
from labkit.kernel import attempts, mounts
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, StrPath
from labkit.runtime.files import devices, idmap, mounting, options, seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]


def kinds(config: Config) -> set[str]:
    """The types of namespaces that the container has for itself."""
    return {one["type"] for one in config.get("linux", {}).get("namespaces", ())}


def folder(config: Config, bundle: StrPath) -> str:
    """The root file system on this machine. Raises NotFound."""
    path = os.path.join(bundle, str(config["root"]["path"]))
    if not os.path.isdir(path):
        raise NotFound(f"there is no root file system {path}", status=1,
                       why="root.path in config.json is a folder, absolute or from the bundle on",
                       next=f"mkdir {path}, and put a file system tree into it")  # fmt: skip
    return os.path.realpath(path)


def prepare(config: Config, bundle: StrPath) -> dict[int, int]:
    """In the maker: {number of the mount: a detached tree} for what only the maker can make.

    Those with mapped numbers; and in a user namespace every bind mount, since the container's root may not be able to
    reach the source.  The descriptors are the caller's to close.  Raises LabError.
    """
    trees: dict[int, int] = {}
    user = "user" in kinds(config)  # a new one, or one that is joined
    try:
        for number, entry in enumerate(config.get("mounts", ())):
            parsed = options.parse(entry.get("options", ()), entry.get("type", ""))
            mapped = bool(parsed.idmap or entry.get("uidMappings"))
            if not parsed.bind:
                if mapped:
                    raise Refused(f"mounts[{number}]: only a bind mount can have mapped numbers", status=1,
                                  why="a new file system has the numbers of its own namespace")  # fmt: skip
                continue
            if mapped or (user and os.geteuid() == 0):
                trees[number] = mounting.source(entry, bundle, parsed)
                if (how := _propagation(config)) & ~C.MS_REC != C.MS_SHARED:
                    # Made among the machine's mounts, it would be their peer: what is mounted in it, there as well.
                    mounts.set_attributes(trees[number], propagation=how & ~C.MS_REC, recursive=True)
                if mapped:
                    idmap.apply(trees[number], entry, config, recursive=parsed.idmap == "ridmap")
    except BaseException:
        for fd in trees.values():
            os.close(fd)
        raise
    return trees


def build(config: Config, bundle: StrPath, trees: dict[int, int] | None = None,
          stack: Callable[[str], None] | None = None) -> int:  # fmt: skip
    """Make the whole tree; the calling process must be in a new mount namespace, if it has one at all.

    stack -- mounts the root file system on its folder, which is empty outside: an overlay that the machine never sees.
    Returns a descriptor (O_PATH) of the root.  Raises LabError.
    """
    where = folder(config, bundle)
    own = kinds(config)
    if "mount" not in own:
        return os.open(where, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # slave: what is unmounted on the machine also goes here; nothing goes back.
    call("mount", None, "/", None, _propagation(config) | C.MS_REC, None)
    # The root is a mount of its own, and its parent private, or pivot_root refuses (EINVAL).
    _private_parent(where)
    if stack:
        stack(where)
    else:
        mounts.mount(where, where, None, ["rbind"])
    root = os.open(where, C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, entry in enumerate(config.get("mounts", ())):
        mounting.place(entry, root, bundle, config, (trees or {}).get(number))
    devices.fill(config, root, user_namespace="user" in own)
    return root


def _propagation(config: Config) -> int:
    """linux.rootfsPropagation as mount(2) has it; slave, if nothing is said."""
    return mounts.PROPAGATION[config.get("linux", {}).get("rootfsPropagation", "rslave")]


def _private_parent(where: str) -> None:
    """Make the mount that the folder lies on private, where it is in the way: shared (pivot_root), or unbindable.

    A slave goes on hearing of the machine's, and so does what is bound from it.
    """
    from labkit.kernel import mountinfo

    tags = {mount.place: mount.tags for mount in mountinfo.table().values()}
    while where not in tags and where != "/":
        where = os.path.dirname(where)
    if any(tag == "unbindable" or tag.startswith("shared:") for tag in tags.get(where, ())):
        call("mount", None, where, None, C.MS_PRIVATE, None)


def enter(config: Config, root: int, *, no_pivot: bool = False) -> None:
    """Make the root this process's /, and let the machine's go. Raises LabError."""
    os.fchdir(root)
    if "mount" not in kinds(config):
        os.chroot(".")
    elif no_pivot:
        # On an initial ramdisk there is nothing to pivot away from: the new root is moved over the old one.
        _let_go(root)
        attempts.attempt("cannot move the root to /", "mount", ".", "/", None, C.MS_MOVE, None)
        os.chroot(".")
    else:
        old = os.open("/", C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        attempts.attempt("cannot make the root file system the root", "pivot_root", ".", ".")
        # The old root, which lies above the new one now: its unmounting must not reach the machine.
        os.fchdir(old)
        os.close(old)
        call("mount", None, ".", None, C.MS_SLAVE | C.MS_REC, None)
        call("umount2", ".", C.MNT_DETACH)
    os.chdir("/")


def _let_go(root: int) -> None:
    """Detach the machine's proc and sysfs, which stay in the mount namespace where nobody has pivoted.

    While a whole one is mounted anywhere in it, the kernel gives a user namespace made in the container another
    whole one, without what was masked (fs/namespace.c, mount_too_revealing).
    """
    from labkit.kernel import mountinfo

    where = os.readlink(f"/proc/self/fd/{root}")
    for mount in reversed([*mountinfo.table().values()]):
        if mount.kind in ("proc", "sysfs") and not f"{mount.place}/".startswith(f"{where}/"):
            try:
                call("umount2", mount.place, C.MNT_DETACH)
            except OSError:  # EINVAL: locked in a user namespace; then it is covered, as runc does it
                mounts.mount("tmpfs", mount.place, "tmpfs", [])


def finish(config: Config) -> None:
    """In the new root: its propagation, read-only, kernel settings, what is frozen and hidden. Raises LabError."""
    linux = config.get("linux", {})
    seal.settings(linux.get("sysctl", {}))
    if "mount" not in kinds(config):
        return
    root = os.open("/", C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in config.get("mounts", ()):
            if entry.get("type") == "tmpfs" and options.parse(entry.get("options", ()), "tmpfs").flags & C.MS_RDONLY:
                seal.close(entry["destination"], root)
        seal.freeze(linux.get("readonlyPaths", ()), root)
        seal.hide(linux.get("maskedPaths", ()), root)
        if (word := linux.get("rootfsPropagation", "")) and word.removeprefix("r") in ("shared", "unbindable"):
            call("mount", None, "/", None, mounts.PROPAGATION[word], None)
        if config["root"].get("readonly"):
            try:
                mounts.set_attributes(root, on=C.MOUNT_ATTR_RDONLY)
            except OSError as error:
                raise LabError("cannot make the root read-only", why=str(error), status=1) from error
    finally:
        os.close(root)
