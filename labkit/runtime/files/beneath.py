"""Floor 3: names in the container's root that no symlink can bend: descriptors.

Owns: finding and making what a destination names, as the container will see it.  The kernel resolves
symlinks and .. as if the root were / (openat2, RESOLVE_IN_ROOT), so that an image cannot lead a mount
out of it (CVE-2021-30465), and what was found is used by its descriptor, not by its name again.

Read: openat2(2); path_resolution(7).
"""

from __future__ import annotations

import errno
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import openat2

# What the kernel gives up on while somebody renames in the tree (openat2(2), EAGAIN): try again.
ATTEMPTS = 32
LINKS = 40  # the kernel's own limit (path_resolution(7))


def find(root: int, path: str, *, follow: bool = True) -> int:
    """A descriptor (O_PATH) of `path` beneath the folder `root`.

    follow -- go through symlinks, inside the root; False: a symlink in the way is ELOOP.  Raises OSError.
    """
    resolve = C.RESOLVE_IN_ROOT | C.RESOLVE_NO_MAGICLINKS | (0 if follow else C.RESOLVE_NO_SYMLINKS)
    for attempt in range(ATTEMPTS):
        try:
            return openat2(root, path, C.O_PATH, resolve=resolve)
        except BlockingIOError:
            if attempt + 1 == ATTEMPTS:
                raise
    raise AssertionError("not reached")


def make(root: int, path: str, *, folder: bool, follow: bool = True) -> int:
    """The same; what is missing on the way is made as folders, and the last part as a folder or an empty file.

    A symlink that leads nowhere yet is followed by hand, inside the root: what it names is made.  Each step asks
    the kernel anew for a way without symlinks, so that nobody can swap one in.  Raises OSError.
    """
    try:
        return find(root, path, follow=follow)
    except FileNotFoundError:
        pass
    here, left, links = "/", path.split("/")[::-1], 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        above = find(root, here, follow=False)
        try:
            points_to = _step(above, name, folder=folder or any(left))
        finally:
            os.close(above)
        if points_to is None:
            here = os.path.join(here, name)
            continue
        links += 1
        if not follow or links > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        here = "/" if points_to.startswith("/") else here
        left += points_to.split("/")[::-1]
    return find(root, here, follow=False)


def _step(above: int, name: str, *, folder: bool) -> str | None:
    """Make `name` in a folder unless it is there; where it leads, if it is a symlink."""
    try:
        if folder:
            os.mkdir(name, 0o755, dir_fd=above)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=above))
    except FileExistsError:
        try:
            return os.readlink(name, dir_fd=above)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is no symlink
                raise
    return None


def place(root: int, fd: int) -> str:
    """Where below the root a descriptor stands, by the names that /proc gives both."""
    top, here = (os.readlink(f"/proc/self/fd/{one}") for one in (root, fd))
    return here.removeprefix(top.rstrip("/")) or "/"
