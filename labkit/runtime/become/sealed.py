"""Floor 3: the interpreter that this runtime runs in, out of a container's reach.

Owns: starting the runtime once more from a file that nobody can write, and the question whether it
already runs from such a one.

A process's /proc/PID/exe is a door to the very file that it was started from.  A program of the
container's can be made to run from the runtime's own file for a moment (a script whose first line is
#!/proc/self/exe), open that door, wait until the runtime has ended, and write: the host's interpreter is
now theirs (CVE-2019-5736).  runc starts itself from a sealed copy, and so does this: the copy lies in
memory (memfd) and is sealed, so that no right of anybody's is enough to write to it.  Where the kernel
runs nothing from such a file (vm.memfd_noexec), the interpreter is opened through a read-only bind mount
that is attached nowhere, and lives as long as the process that runs from it.

Libraries have no such door: /proc/PID/map_files opens for CAP_SYS_ADMIN of the machine only, and a
program that execve started has none of the runtime's mapped.

When: `exec` into a container that runs, and the helper of a warm start, once in its life.  For the first
process of a container, in whose namespaces nobody else is, `execute.guard` is enough.  An administrator
can have both: start labkit-runtime by an interpreter that lies on a read-only mount, and `is_sealed` is
true from the beginning.  Little is imported here, and late, since all of it is imported twice.

Read: proc_pid_exe(5), memfd_create(2), fcntl(2) on file seals, open_tree(2), mount_setattr(2), execveat(2).
"""

from __future__ import annotations

import fcntl
import os
import sys

from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
EXE = "/proc/self/exe"
MARK = "_LABKIT_SEALED"
MFD_EXEC = 0x10  # linux/memfd.h, Linux 6.3; Python 3.11's os lacks it
AT_FDCWD = -100


def is_sealed() -> bool:
    """Whether the file that this process runs from can be written by nobody through this process's /proc entry."""
    if os.statvfs(EXE).f_flag & os.ST_RDONLY:
        return True
    fd = os.open(EXE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # EINVAL: a file of an ordinary file system
        return False
    finally:
        os.close(fd)


def seal(arguments: Sequence[str]) -> None:
    """Start this runtime again from a file that nobody can write, unless it runs from one: then return.

    arguments -- what follows the interpreter's name: sys.orig_argv[1:].  Call it before there is anything to
    lose: descriptors that are not inheritable are closed, as over every execve.
    Raises Refused where neither way is open.
    """
    before = os.environ.pop(MARK, "")
    if is_sealed():
        return
    failed: list[str] = []
    # The same process, started again: it must not try for ever.
    if before != str(os.getpid()):
        for way in (copied, read_only):
            try:
                os.execve(way(), [sys.executable, *arguments], {**os.environ, MARK: str(os.getpid())})
            except OSError as error:
                failed.append(f"{way.__name__}: {error}")
    from labkit.errors import Refused

    raise Refused(
        "cannot protect the runtime's interpreter from the container (CVE-2019-5736)",
        why="; ".join(failed) or "started from a protected file, it is writable all the same",
        next="start labkit-runtime by an interpreter on a read-only mount",
        status=1,
    )


def copied() -> int:
    """A copy of the interpreter's file in memory, sealed against every change. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("labkit", flags | MFD_EXEC)
    except OSError:  # EINVAL: an older kernel, where every such file may be executed
        fd = os.memfd_create("labkit", flags)
    with open(EXE, "rb", buffering=0) as file:
        while os.sendfile(fd, file.fileno(), None, 1 << 24):
            pass
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


def read_only() -> int:
    """The interpreter's file, opened through a read-only mount attached nowhere (Linux 5.12). Raises OSError."""
    import struct

    from labkit import leanctypes as ctypes
    from labkit.kernel import constants as C
    from labkit.kernel.syscalls import call

    tree = call("open_tree", AT_FDCWD, EXE, C.OPEN_TREE_CLONE | os.O_CLOEXEC)
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", C.MOUNT_ATTR_RDONLY, 0, 0, 0), 32)
    try:
        call("mount_setattr", tree, "", C.AT_EMPTY_PATH, attributes, 32)
    except OSError:
        os.close(tree)
        raise
    return tree
