"""Top floor: probes of seccomp, Landlock and AppArmor: each really forbids, or loads, something.

Owns: a filter that gives one call an errno of our choice; a ruleset that closes a file; a
profile loaded into an AppArmor policy namespace of its own, which is removed again.

Read: seccomp(2), landlock(7), apparmor_parser(8), security/apparmor/apparmorfs.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel import process
from labkit.kernel.syscalls import call, number
from labkit.lab import doctor_probes_leftovers as leftovers
from labkit.lab.doctor_probes import Probe, Seen, why
from labkit.lab.doctor_probes_namespaces import AS_ROOT

# include/uapi/linux/bpf_common.h and seccomp.h
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
CHOSEN = errno.EBADFD  # no call that only reads a number gives this by itself
ACCESS_FS_READ_FILE = 1 << 2  # include/uapi/linux/landlock.h


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr as of ABI 1."""

    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


def seccomp() -> dict[str, Seen]:
    """gettid must fail with the chosen errno, and the next call must not."""
    steps = [
        (LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
        (JUMP_EQUAL, 0, 1, number("gettid")),
        (RETURN, 0, 0, RET_ERRNO | CHOSEN),
        (RETURN, 0, 0, RET_ALLOW),
    ]
    program = Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
    try:
        process.forbid_new_privileges()
        call("seccomp", C.SECCOMP_SET_MODE_FILTER, 0, program)
    except OSError as error:
        return {"seccomp": Seen("missing", why(error))}
    try:
        call("gettid")
    except OSError as error:
        if error.errno == CHOSEN and os.getpid() > 0:
            return {"seccomp": Seen("ok", "a filter made one call fail with the errno that it chose")}
    return {"seccomp": Seen("missing", "a filter was taken and changed nothing")}


def landlock() -> dict[str, Seen]:
    """The ABI number, and a file that can no longer be opened."""
    try:
        abi = call("landlock_create_ruleset", None, 0, C.LANDLOCK_CREATE_RULESET_VERSION)
        ruleset = Ruleset(ACCESS_FS_READ_FILE)
        fd = call("landlock_create_ruleset", ruleset, ctypes.sizeof(ruleset), 0)
        process.forbid_new_privileges()
        call("landlock_restrict_self", fd, 0)
    except OSError as error:
        words = {
            errno.ENOSYS: "this kernel is built without it",
            errno.EOPNOTSUPP: "built in, but not among the modules that this kernel started (lsm=)",
        }
        return {"landlock": Seen("missing", words.get(error.errno or 0, why(error)))}
    try:
        os.close(os.open(sys.executable, os.O_RDONLY))
    except PermissionError:
        return {"landlock": Seen("ok", f"ABI {abi}; a ruleset closed a file")}
    return {"landlock": Seen("missing", f"ABI {abi}, but a ruleset changed nothing")}


def apparmor() -> dict[str, Seen]:
    """Enabled in the kernel, and a profile can be loaded."""
    switch = Path("/sys/module/apparmor/parameters/enabled")
    if not switch.exists():
        return {"apparmor": Seen("missing", "this kernel has none")}
    if switch.read_text().strip() != "Y":
        return {"apparmor": Seen("missing", "switched off", "boot with apparmor=1 security=apparmor")}
    if shutil.which("apparmor_parser") is None:
        return {"apparmor": Seen("limited", "enabled, but nothing can load a profile", "apt-get install apparmor")}
    if os.geteuid() != 0:
        return {"apparmor": Seen("limited", "enabled; loading a profile is root's", AS_ROOT)}
    if not leftovers.POLICY_NAMESPACES.is_dir():
        return {"apparmor": Seen("limited", "enabled, but its files cannot be seen",
                                 "mount -t securityfs securityfs /sys/kernel/security")}  # fmt: skip
    return {"apparmor": _load_profile()}


def _load_profile() -> Seen:
    """Load a profile into a policy namespace of our own, where it confines nobody."""
    name = leftovers.name()
    folder = leftovers.POLICY_NAMESPACES / name
    try:
        folder.mkdir()
    except OSError as error:
        return Seen("limited", f"enabled, but no profile can be loaded: {why(error)}")
    try:
        words = ["apparmor_parser", "--skip-cache", "--namespace", name, "--add"]
        done = subprocess.run(words, input="profile labkit-doctor { }\n", capture_output=True, text=True)
        if done.returncode or not list((folder / "profiles").glob("labkit-doctor.*")):
            said = (done.stderr.strip() or "nothing").splitlines()[0]
            return Seen("limited", f"enabled, but no profile can be loaded; apparmor_parser says: {said}")
    finally:
        folder.rmdir()
    return Seen("ok", "enabled, and a profile was parsed, loaded and removed")


PROBES = {
    "apparmor": Probe(("apparmor",), apparmor),
    "seccomp": Probe(("seccomp",), seccomp),
    "landlock": Probe(("landlock",), landlock),
}
