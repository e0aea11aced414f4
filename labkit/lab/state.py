"""Top floor: what is known of a lab while it runs, and where that is written.

Owns: the state folder of this checkout's lab (one for each checkout, so that several on
one machine never meet), the record of the running machine in it, and the lock that makes
two `make lab` at once come to one machine.

The folder holds the machine's throw-away disk, its ssh key and its log.  It lies with the
user and not in the checkout: the checkout is shared with the machine, in which a learner
may remove anything.

Read: the XDG Base Directory specification, proc_pid_stat(5), flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from labkit.errors import LabError

TREE = Path(__file__).resolve().parents[2]


class Machine(NamedTuple):
    """A started machine, as written in lab.json."""

    pid: int  # of QEMU
    started: int  # its start time, in clock ticks since the host's boot: a pid alone can be another's
    ssh: int  # port of 127.0.0.1 that leads to its sshd
    port: int  # the same for JupyterLab
    publish: int  # the first of PUBLISHED ports, which lead to 8080 and up
    token: str
    image: str  # folder of the image beneath its disk
    variant: str
    accelerator: str
    why: str  # ... was chosen
    memory: int  # MiB
    since: float  # seconds since the epoch


def folder() -> Path:
    """The state folder of this checkout's lab; $LAB_NAME names a second machine beside it."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    checkout = hashlib.sha256(os.fsencode(TREE)).hexdigest()[:12]
    name = os.environ.get("LAB_NAME", "lab")
    if not name.replace("-", "").isalnum():
        raise LabError(f"LAB_NAME={name!r} cannot name a machine", next="use letters, digits and -")
    return Path(base) / "labkit" / f"{checkout}-{name}"


def load() -> Machine | None:
    """The machine on record, running or not; None when there is none."""
    try:
        fields = json.loads((folder() / "lab.json").read_text())
        return Machine(**fields)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LabError("cannot read the record of the running lab", why=f"{folder() / 'lab.json'}: {error}",
                       next="make down") from error  # fmt: skip


def save(machine: Machine) -> None:
    """Write the record, complete or not at all; nobody else may read the token."""
    part = folder() / "lab.json.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(machine._asdict(), file, indent=1)
    part.rename(folder() / "lab.json")


def running() -> Machine | None:
    """The machine on record, if its process is alive."""
    machine = load()
    return machine if machine and alive(machine.pid, machine.started) else None


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None for a process that is gone, or only waits to be reaped."""
    try:
        # The second field, the name in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, started: int) -> bool:
    """Whether this very process still runs."""
    return start_time(pid) == started


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of this checkout's lab; a second starter waits here.

    The lock's file goes when there is no lab left, so who got the lock looks whether the file is
    still the one that others would open: else two could hold a lock each.
    """
    path = folder().with_suffix(".lock")
    file = _lock(path)
    try:
        yield
    finally:
        if not folder().exists():
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other checkouts' labs may be here
                path.parent.rmdir()
        file.close()


def _lock(path: Path) -> IO[str]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the folder, or the file, went meanwhile
            file = path.open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()


def forget() -> None:
    """Remove everything that was kept of the machine; call with the lock held."""
    machine = None
    with contextlib.suppress(LabError):
        machine = load()
    if machine is not None:
        in_use(Path(machine.image)).unlink(missing_ok=True)
    if folder().exists():
        shutil.rmtree(folder())


def in_use(image: Path) -> Path:
    """The mark beside an image that says which lab's disk lies on it."""
    return image / f"{folder().name}.in-use"
