"""Top floor: the check of birth-order.

Owns: the eight steps as one process makes them, in any order, and what the kernel says to it.
Read: the OCI runtime specification, runtime.md, "Lifecycle"; user_namespaces(7), capabilities(7), seccomp(2).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from labkit.kernel import capabilities, mounts, process
from labkit.kernel import constants as C
from labkit.kernel.seccomp import classic, compiler, load, profile
from labkit.kernel.syscalls import call
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong

STEPS = {
    "bounding": "every capability but CAP_KILL leaves the bounding set",
    "filter": "a seccomp filter: no mounts, no names, no change of user",
    "mounts": "the root file system is mounted on its folder, and the programs into it",
    "name": "sethostname",
    "namespaces": "unshare: new mount and UTS namespaces",
    "pivot": "pivot_root: the folder becomes /",
    "program": "execve: the program, which prints what it finds",
    "user": "the groups, the group and the user become 1000; the capabilities go with root",
}
FORBIDDEN = ["mount", "umount2", "pivot_root", "sethostname", "setresuid", "setresgid", "setgroups", "move_mount"]
USER, NAME = 1000, "inside"
# Compiled here: behind the pivot no module can be found any more.
RULE = {"names": FORBIDDEN, "action": "SCMP_ACT_ERRNO"}
FILTER = classic.pack(compiler.compile(profile.parse({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [RULE]})))
ASK = "id -u; hostname; ls / | tr '\\n' ' '; echo; grep -E '^(CapBnd|Seccomp):' /proc/self/status"


def check(order: Callable[[Mapping[str, str]], list[str]], lab: Ground) -> None:
    """Go through the steps in the answer's order, in a process of its own."""
    wanted = lab.call(order, dict(sorted(STEPS.items())))
    if not isinstance(wanted, list | tuple) or not all(isinstance(one, str) for one in wanted):
        raise Wrong(f"order(steps) gives {type(wanted).__name__}, and not a list of words")
    if unknown := [one for one in wanted if one not in STEPS]:
        raise Wrong(f"there is no step {unknown[0]!r}")
    if lacking := sorted(set(STEPS) - set(wanted)):
        raise Wrong(f"the list lacks: {', '.join(lacking)}")
    if len(wanted) > len(STEPS):
        raise Wrong("a step stands in the list twice")
    folder, machine = lab.folder(), lab.child("machine")
    folder.chmod(0o755)
    name = Child.do(machine, socket.gethostname)
    told = Child.do(machine, birth, list(wanted), str(folder))
    if (now := Child.do(machine, socket.gethostname)) != name:
        raise Wrong(f"the machine itself has another name now: {now}, and not {name}")
    if Child.do(machine, mounts.is_mounted, str(folder / "root")):
        raise Wrong("the machine itself has the container's mounts now")
    if "failed" in told:
        raise Wrong(f"{told['failed']}: {told['why']}; behind it: {', '.join(told['made']) or 'nothing'}")
    uid, host, files, *status = told["said"].splitlines()
    found = {line.partition(":")[0]: line.split()[1] for line in status}
    for seen, expected, what in ((uid, str(USER), "its user"), (host, NAME, "its name"),
                                 (int(found["CapBnd"], 16), 1 << 5, "its bounding set"),
                                 (found["Seccomp"], "2", "its filter")):  # fmt: skip
        if seen != expected:
            raise Wrong(f"the program ran, and {what} is {seen} instead of {expected}")
    if "home" in files.split():
        raise Wrong("the program ran, and sees the machine's files")


def birth(order: list[str], folder: str) -> dict[str, Any]:
    """In a child: one more process, which makes the steps; what it, or its program, said."""
    heard, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        _walk(order, Path(folder), said)
    os.close(said)
    with os.fdopen(heard) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    if not text.startswith("{"):
        return {"said": text}
    found: dict[str, Any] = json.loads(text)
    return found


def _walk(order: list[str], folder: Path, said: int) -> NoReturn:
    made: list[str] = []
    step = ""
    try:
        for step in order:
            DEEDS[step](folder, said)
            made.append(step)
    except BaseException as error:
        number = getattr(error, "errno", None)
        why = f"{os.strerror(number)} (errno {number})" if number else f"{type(error).__name__}: {error}"
        os.write(said, json.dumps({"failed": step, "why": why, "made": made}).encode())
    finally:
        os._exit(1)


def _namespaces(folder: Path, said: int) -> None:
    call("unshare", C.CLONE_NEWNS | C.CLONE_NEWUTS)
    call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)


def _mounts(folder: Path, said: int) -> None:
    root = folder / "root"
    root.mkdir()
    call("mount", "tmpfs", str(root), "tmpfs", 0, "mode=755")
    for name in ("usr", "proc"):
        (root / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    call("mount", "/usr", str(root / "usr"), None, C.MS_BIND, None)
    call("mount", "/proc", str(root / "proc"), None, C.MS_BIND | C.MS_REC, None)


def _pivot(folder: Path, said: int) -> None:
    root = folder / "root"
    root.mkdir(exist_ok=True)
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", C.MNT_DETACH)
    os.chdir("/")


def _name(folder: Path, said: int) -> None:
    call("sethostname", NAME, len(NAME))


def _bounding(folder: Path, said: int) -> None:
    capabilities.limit(["CAP_KILL"])


def _user(folder: Path, said: int) -> None:
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def _filter(folder: Path, said: int) -> None:
    process.forbid_new_privileges()
    load.load(FILTER)


def _program(folder: Path, said: int) -> None:
    os.dup2(said, 1)
    os.execve("/usr/bin/sh", ["sh", "-c", ASK], {"PATH": "/usr/bin"})


DEEDS: dict[str, Callable[[Path, int], None]] = {
    "bounding": _bounding, "filter": _filter, "mounts": _mounts, "name": _name, "namespaces": _namespaces,
    "pivot": _pivot, "program": _program, "user": _user,
}  # fmt: skip
