"""Floor 3: the child gives its powers away: another user, fewer capabilities, one folder to stand in.

Owns: the order, which the kernel dictates: the bounding set while CAP_SETPCAP is there; groups before
the user; the sets after the user, whose change would empty them.  The folder comes first with root's
rights, as with runc, and where root has none (FUSE, NFS), once more with the user's.

Nothing here asks a file of /proc: that is the container's by now, and its image may hold other files
under the same names.  What must be known is asked of the kernel by system calls.

Read: credentials(7), capabilities(7), "Effect of user ID changes on capabilities"; CVE-2024-21626
for the folder; ptrace(2) on the dumpable attribute.
"""

from __future__ import annotations

import os

from labkit import leanctypes as ctypes
from labkit.errors import Refused
from labkit.kernel import capabilities, process
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call, openat2
from labkit.lean import TYPE_CHECKING
from labkit.runtime.become.ready import Ready

if TYPE_CHECKING:
    from typing import NoReturn

NOBODY = 2**32 - 1  # to the kernel: leave it as it is
LONGEST = 4096  # PATH_MAX
SETGID = 1 << capabilities.NUMBERS["CAP_SETGID"]


def drop(ready: Ready) -> None:
    """Become the user with exactly the granted capabilities, in the working directory. Raises Refused."""
    wanted = ready.process
    user = wanted.get("user", {})
    granted = ready.capabilities
    inside = _enter(wanted["cwd"], first=True)
    capabilities.limit(granted["bounding"], ready.highest)
    _own_stdio(user.get("uid", 0))
    capabilities.keep_over_change_of_user(True)
    _become(user.get("uid", 0), user.get("gid", 0), user.get("additionalGids", []))
    capabilities.keep_over_change_of_user(False)
    try:
        capabilities.set_exactly(*(granted[kind] for kind in ("effective", "permitted", "inheritable", "ambient")))
    except OSError as error:
        held = capabilities.names(capabilities.own()[1])
        lacking = ", ".join(sorted(set(granted["permitted"]) - set(held)))
        why = f"this process itself lacks {lacking}" if lacking else "effective goes beyond permitted, or inheritable"
        raise Refused("process.capabilities: cannot be granted", why=f"{why}: {error}", status=1) from error
    if not inside:
        _enter(wanted["cwd"], first=False)
    stay_inside(wanted["cwd"])
    # A change of user makes a process dumpable again where fs.suid_dumpable says so.
    process.hide_memory()
    if wanted.get("noNewPrivileges"):
        process.forbid_new_privileges()


def _own_stdio(uid: int) -> None:
    """Give the standard streams to the user, so that /dev/stdout can be opened again by its name (as runc does)."""
    null = os.makedev(1, 3)
    for number in (0, 1, 2):
        try:
            found = os.fstat(number)
            if found.st_uid != uid and found.st_rdev != null:
                os.fchown(number, uid, -1)
        except OSError:
            continue  # closed, read-only, or somebody else's: the open stream works all the same


def _become(uid: int, gid: int, groups: list[int]) -> None:
    if NOBODY in (uid, gid, *groups):
        raise Refused("process.user: 4294967295 is nobody's number", why="setresuid(2): it means: leave it", status=1)
    try:
        _set_groups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise Refused(
            f"process.user: cannot become user {uid} of group {gid}" + (f" and {groups}" if groups else ""),
            why=f"{error.strerror} (errno {error.errno}): in a user namespace only mapped numbers are somebody's, and "
            "where /proc/self/setgroups says deny, further groups cannot be set",
            next="map them in linux.uidMappings and linux.gidMappings, or take additionalGids out",
            status=1,
        ) from error


def _set_groups(groups: list[int]) -> None:
    """Be in these further groups and in no others, or in the maker's where the kernel lets nobody leave them.

    A rootless user's namespace with one mapped number is such a place (user_namespaces(7), setgroups).
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        # With CAP_SETGID in hand, it is the namespace that forbids it.
        if groups or (os.getgroups() and not capabilities.own()[0] & SETGID):
            raise


def _enter(folder: str, *, first: bool) -> bool:
    """Stand in `folder`; missing parts are made, with the rights of root.  False: try again as the user."""
    try:
        try:
            os.chdir(folder)
        except FileNotFoundError:
            if not first:
                raise
            make_folder(folder)
            os.chdir(folder)
    except PermissionError as error:
        if first:  # root without rights here: a file system that obeys the user only (FUSE, NFS)
            return False
        _no_folder(folder, error)
    except OSError as error:
        _no_folder(folder, error)
    return True


def make_folder(folder: str) -> None:
    """Make what is missing of `folder`, beneath the root and through no magic link. Raises OSError.

    Through /proc/self/fd/7 a folder of the host's would be made, before anybody sees that it leads out.
    """
    root = os.open("/", C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    here, path = os.dup(root), "."
    try:
        for part in folder.split("/"):
            if part in ("", "."):
                continue
            path = f"{path}/{part}"
            for _ in range(2):
                try:
                    inner = openat2(root, path, C.O_PATH | os.O_DIRECTORY,
                                    resolve=C.RESOLVE_IN_ROOT | C.RESOLVE_NO_MAGICLINKS)  # fmt: skip
                    break
                except FileNotFoundError:
                    # The last name of the open folder: made in no other place, whatever the way is by now.
                    os.mkdir(part, 0o755, dir_fd=here)
            else:
                raise FileNotFoundError(2, os.strerror(2), folder)
            os.close(here)
            here = inner
    finally:
        os.close(here)
        os.close(root)


def _no_folder(folder: str, error: OSError) -> NoReturn:
    raise Refused(
        f"process.cwd: cannot stand in {folder}",
        why=f"{os.strerror(error.errno or 0)} (errno {error.errno})",
        next="a folder of the root file system that the user may enter",
        status=1,
    ) from error


def stay_inside(folder: str) -> None:
    """Raise Refused when this process stands outside its root.

    Through a descriptor of the host that was left open, a cwd such as /proc/self/fd/7 leads out.  The kernel
    then has no path for it; asked directly, since the C library would go looking for one of its own
    (getcwd(2): "(unreachable)").
    """
    buffer = ctypes.create_string_buffer(LONGEST)
    try:
        call("getcwd", buffer, LONGEST)
        why = "" if buffer.value.startswith(b"/") else "the kernel has no path for it from this root (CVE-2024-21626)"
    except OSError as error:
        why = f"the kernel has no path for it: {os.strerror(error.errno or 0)}"
    if why:
        raise Refused(f"process.cwd: {folder} leads out of the container", why=why, status=1,
                      next="a folder of the root file system")  # fmt: skip
