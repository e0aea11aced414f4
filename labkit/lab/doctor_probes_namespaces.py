"""Top floor: probes of namespaces: every kind really made, and who may make a user namespace.

Owns: unshare of each kind with its proof, and the user-namespace policy as an ordinary
user meets it.

Read: namespaces(7), user_namespaces(7), unshare(2), pid_namespaces(7), time_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel import mounts, namespaces
from labkit.kernel.syscalls import call
from labkit.lab import doctor_probes_text as text
from labkit.lab.doctor_probes import Probe, Seen, why

NOBODY = 65534
# These take effect in the next child; the caller's own stay (namespaces(7)).
FOR_CHILDREN = {"pid": "pid_for_children", "time": "time_for_children"}
AS_ROOT = "run it as root"


def fence(*kinds: str) -> bool:
    """Go on in new namespaces of these kinds, mounts private.

    An ordinary user first becomes root of a new user namespace; whether that was needed is
    returned.  Raises OSError.
    """
    in_user = os.geteuid() != 0
    if in_user:
        become_root_of_new()
    namespaces.leave(list(kinds))
    if "mnt" in kinds:
        mounts.propagate("/", "rprivate")
    return in_user


def become_root_of_new() -> None:
    """A new user namespace in which this user alone is mapped, to 0. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    namespaces.leave(["user"])
    # The kernel wants this before gid_map from whom has no CAP_SETGID outside (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def judged(in_user: bool, found: str) -> Seen:
    """ok, or limited where it only worked in a user namespace of this ordinary user."""
    if not in_user:
        return Seen("ok", found)
    return Seen("limited", f"{found}, but only inside a user namespace", AS_ROOT)


def refused(error: BaseException) -> Seen:
    """missing, with the kernel's words; a limit of /proc/sys/user is named."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Seen("missing", "a limit in /proc/sys/user is reached", "sysctl user | grep max_, and raise it")
    if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        return Seen("missing", f"{why(error)} for uid {os.geteuid()}", AS_ROOT)
    return Seen("missing", why(error))


def kinds() -> dict[str, Seen]:
    """unshare of each kind: its file in /proc must then name another namespace."""
    in_user = os.geteuid() != 0
    seen: dict[str, Seen] = {}
    # root of a new user namespace loses its power over the old ones, so that comes last;
    # an ordinary user has power over nothing before it.
    order = sorted(namespaces.KINDS, key=lambda kind: (kind == "user") != in_user)
    for kind in order:
        key = f"ns.{kind}"
        file = f"/proc/self/ns/{FOR_CHILDREN.get(kind, kind)}"
        try:
            before = os.readlink(file)
            if kind == "user":
                become_root_of_new()
            else:
                namespaces.leave([kind])
            # Before the first process of a new pid namespace there is nothing to read (ENOENT).
            proof = PROOFS[kind]() if kind in PROOFS else "made one"
            if kind != "pid" and os.readlink(file) == before:
                proof = ""
        except OSError as error:
            seen[key] = refused(error)
            continue
        # An ordinary user's own user namespace is all that the kind promises.
        seen[key] = judged(in_user and kind != "user", proof) if proof else Seen("missing", "unshare changed nothing")
    return seen


def _host_name() -> str:
    socket.sethostname("labkit-doctor")
    return "made one with its own host name" if os.uname().nodename == "labkit-doctor" else ""


def _process_one() -> str:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    return "made one, its first process is number 1" if os.waitpid(pid, 0)[1] == 0 else ""


PROOFS = {"uts": _host_name, "pid": _process_one}


def sysctls() -> dict[str, str]:
    """Those of the user-namespace policy that this kernel has."""
    found = {}
    for name, *_ in text.USERNS_SYSCTLS:
        file = Path("/proc/sys", name.replace(".", "/"))
        if file.exists():
            found[name] = file.read_text().strip()
    return found


def unprivileged() -> dict[str, Seen]:
    """As an ordinary user: a user namespace, and the power inside it.

    Ubuntu's restriction lets the namespace be made and takes its capabilities away, so
    only a call that needs one tells.
    """
    values = sysctls()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # Changing the user made /proc/self root's, uid_map too (proc(5)).
        call("prctl", C.PR_SET_DUMPABLE, 1, 0, 0, 0)
    user = os.geteuid()
    try:
        become_root_of_new()
        namespaces.leave(["uts"])
        socket.sethostname("labkit-doctor")
    except OSError as error:
        obstacle, remedy = text.userns_obstacle(values)
        reason = obstacle or f"{why(error)}; {text.userns_settings(values)}"
        return {"userns": Seen("missing", f"uid {user} may not: {reason}", remedy)}
    return {"userns": Seen("ok", f"uid {user} made one and is root in it; {text.userns_settings(values)}")}


PROBES = {
    "namespaces": Probe(tuple(f"ns.{kind}" for kind in namespaces.KINDS), kinds),
    "userns": Probe(("userns",), unprivileged),
}
