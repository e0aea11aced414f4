"""Floor 1: overlayfs: a stack of folders seen as one, writes going to the top one.

Owns: mounting an overlay, by the new mount interface where the kernel takes layers one
by one (`lowerdir+`, Linux 6.5), else by mount(2), whose option string must fit a page.

Read: Documentation/filesystems/overlayfs.rst, fsopen(2), fsconfig(2).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel import attempts, causes, mounts, namespaces
from labkit.kernel import constants as C
from labkit.kernel.causes_words import Listener
from labkit.kernel.syscalls import call


def mount_overlay(target: Path, lower: list[Path], upper: Path, work: Path) -> None:
    """Mount the layers `lower` (bottom first) below `upper` on `target`.

    Raises LabError: the kernel's words from its mount context first, then the errno.
    """
    if not lower:
        raise LabError("an overlay needs at least one lower folder", next="give one; an empty folder will do")
    arguments = ("overlay", target, list(reversed(lower)), upper, work)
    with Listener("overlay") as listener:
        try:
            _mount_by_context(target, lower, upper, work)
            return
        except OSError as error:
            said = "; ".join(filter(None, (getattr(error, "kernel_words", ""), listener.heard())))
            found = causes.explain(error, "overlay", arguments)
            # Kernels before 6.5 do not know lowerdir+ and say EINVAL; then the old call decides.
            if found.why or error.errno not in (errno.EINVAL, errno.ENOSYS):
                causes.teach(error, f"cannot mount an overlay on {target}", "overlay", arguments, said)
    _mount_by_string(target, lower, upper, work)


def _mount_by_context(target: Path, lower: list[Path], upper: Path, work: Path) -> None:
    # The kernel wants the top layer first; the caller names the bottom one first.
    settings = [("lowerdir+", folder) for folder in reversed(lower)]
    settings += [("upperdir", upper), ("workdir", work)]
    # Root of a user namespace may not set trusted.*: the marks are user.overlay.* then (Linux 5.11).
    flags = ("userxattr",) if namespaces.nested() else ()
    tree = mounts.new("overlay", flags, source="overlay", settings=settings)
    try:
        call("move_mount", tree, "", -100, target, C.MOVE_MOUNT_F_EMPTY_PATH)  # -100: AT_FDCWD
    finally:
        os.close(tree)


def _mount_by_string(target: Path, lower: list[Path], upper: Path, work: Path) -> None:
    stack = ":".join(_escape(folder) for folder in reversed(lower))
    data = f"lowerdir={stack},upperdir={_escape(upper)},workdir={_escape(work)}"
    if namespaces.nested():
        data += ",userxattr"
    if len(data) >= os.sysconf("SC_PAGE_SIZE"):
        raise LabError(
            f"cannot mount an overlay of {len(lower)} layers on {target}",
            why=f"mount(2) takes one page of options and these are {len(data)} bytes",
            next="a kernel from 6.5 on takes the layers one by one",
        )
    attempts.attempt(f"cannot mount an overlay on {target}", "mount", "overlay", target, "overlay", 0, data)


def _escape(folder: Path) -> str:
    """Colons part layers and commas part options, unless a backslash stands before them."""
    return os.fspath(folder).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
