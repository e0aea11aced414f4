"""Floor 3: containers of an ordinary user: one user namespace, in which that user is root.

Owns: the namespace and who holds it.  Whatever a user's containers need of root (mounts, other users' files, the
namespaces of containers that are there already) is a matter of rights in one user namespace; so all verbs of one
user enter the same one, with a mount namespace of its own.  A process that sleeps holds both, from the first verb
to `labkit reset`.

The numbers inside: 0 is the user, 1 and up are those of /etc/subuid and /etc/subgid, which newuidmap and newgidmap
write.  What belongs to the machine stays root's: bridges, ports' rules, cgroups that nobody gave to the user.

Read: user_namespaces(7), setns(2), newuidmap(1), subuid(5); the man page of podman-system-migrate on its own holder.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import sys
from pathlib import Path

from labkit import paths
from labkit.errors import Refused, explain
from labkit.kernel import namespaces, process
from labkit.kernel.ledger import Ledger
from labkit.runtime.life import mapping

OWNER = "user-namespace"  # its ledger: the holder ends with `labkit reset`
KINDS = ["user", "mnt"]
TITLE = "labkit-holder"
Numbers = list[dict[str, int]]  # uidMappings, or gidMappings


def enter() -> None:
    """Run this command line again, as root of the user's own namespace. Raises Refused, LabError."""
    here = os.getcwd()
    pid = _holder()
    environment = {**os.environ, "LABKIT_DATA": str(paths.data()), "LABKIT_RUN": str(paths.run())}
    try:
        namespaces.join(pid, KINDS)
    except OSError as error:
        explain(error, f"cannot enter the namespaces that process {pid} holds", why=_notes(error), next="labkit reset")
    os.chdir(here)  # a mount namespace is entered at its root
    # As a new program, this process's files in /proc are the namespace's root's, and no longer the machine's.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _holder() -> int:
    """The process that holds the namespaces; made if there is none. Raises Refused, LabError."""
    users, groups = (numbers(Path(f"/etc/{file}"), own) for file, own in _own())
    folder = paths.run()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"there is no place for {folder}", why=str(error),
                      next="log in, which makes /run/user/UID; or set XDG_RUNTIME_DIR") from error  # fmt: skip
    with (folder / "holder.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ledger = Ledger(OWNER)
        for entry in ledger.entries():
            pid, start = int(entry.fields["pid"]), int(entry.fields["start"])
            if process.is_alive(pid, start):
                return pid
        ledger.release_all()
        return _hold(ledger, users, groups)


def _hold(ledger: Ledger, users: Numbers, groups: Numbers) -> int:
    """Start the process that sleeps in new namespaces, with the user's numbers. Raises Refused, LabError."""
    ready, made = os.pipe()
    go, mapped = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(mapped)
            os.setsid()
            namespaces.leave(KINDS)
            os.write(made, b"\0")
            if not os.read(go, 1):  # the mappings are written by whoever has the rights outside
                os._exit(1)
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.closerange(3, 1 << 16)
            os.chdir("/")
            os.execvp("sleep", [TITLE, "infinity"])
        except BaseException as error:
            os.write(made, f"{error}. {_notes(error)}".encode())
        finally:
            os._exit(1)
    os.close(made)
    os.close(go)
    try:
        with os.fdopen(ready, "rb", buffering=0) as pipe:
            said = pipe.read(4096)
        if said != b"\0":
            raise Refused("this machine lets no ordinary user make a user namespace", why=said.decode(),
                          next="labkit doctor, or as root: labkit run")  # fmt: skip
        ledger.record("process", pid=pid, start=process.start_time(pid) or 0)
        mapping.write(pid, users, groups)
        os.write(mapped, b"\0")
    except BaseException:
        process.kill(pid, process.start_time(pid))
        os.waitpid(pid, 0)
        ledger.release_all()
        raise
    finally:
        os.close(mapped)
    return pid


def _notes(error: BaseException) -> str:
    """Which of the kernel's conditions was not met (labkit.kernel.causes)."""
    return " ".join(getattr(error, "__notes__", ()))


def _own() -> tuple[tuple[str, int], tuple[str, int]]:
    return ("subuid", os.geteuid()), ("subgid", os.getegid())


def numbers(file: Path, own: int) -> Numbers:
    """The mapping: 0 is this user (or group), from 1 on those that `file` gives the user. Raises Refused for none."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = ""
    lines = [{"containerID": 0, "hostID": own, "size": 1}]
    text = file.read_text() if file.exists() else ""
    for who, start, count in (row for line in text.splitlines() if len(row := line.strip().split(":")) == 3):
        if who in (name, str(os.geteuid())):
            last = lines[-1]
            inside = last["containerID"] + last["size"]
            lines.append({"containerID": inside, "hostID": int(start), "size": int(count)})
    if len(lines) == 1:
        raise Refused("containers need root, or numbers of one's own",
                      why=f"{file} gives {name or 'this user'} none, and this is user {os.geteuid()}",
                      next=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name or 'NAME'}",
                      )  # fmt: skip
    return lines
