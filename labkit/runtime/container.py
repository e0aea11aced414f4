"""Floor 3: the maker's side of a container: created, started, waited for, given back.

Owns: the order in which the machine's side acquires things, each written into the
ledger before it is acquired: the folder, the cgroup, the process, and what the caller
adds (a network).  labkit.runtime.child is the other side.

Read: the OCI runtime specification, "Lifecycle"; clone3 in clone(2).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from labkit import errors
from labkit.errors import Refused
from labkit.kernel import cgroups, namespaces, process, syscalls
from labkit.kernel.ledger import Ledger
from labkit.runtime import channel, child, units
from labkit.storage.overlay import Root

OCI_KINDS = {kind.oci: name for name, kind in namespaces.KINDS.items()}
CONTROLLER_OPTIONS = {"memory": "--memory", "cpu": "--cpus", "pids": "--pids-limit"}


class Container:
    """One container on its way from config.json to the end of its process 1.

    config -- the OCI configuration; root -- its layers; folder -- its own folder, where
    the root will be shown (inside its mount namespace only); ledger -- who owns it all.
    """

    def __init__(self, identifier: str, config: dict[str, Any], root: Root, folder: Path, ledger: Ledger) -> None:
        self.id = identifier
        self.config = config
        self.root = root
        self.folder = folder
        self.ledger = ledger
        self.cgroup: Path | None = None
        self.pid = 0
        self.start_time = 0
        self._channel: channel.Channel | None = None

    def create(self, stdio: list[int], *, init: bool) -> int:
        """Make the cgroup and the process inside its new namespaces; it waits for `start`.

        Returns the pid.  Raises LabError; what was acquired is in the ledger.
        """
        self.cgroup = make_cgroup(self.config, self.ledger)
        target = self.folder / "rootfs"
        target.mkdir(exist_ok=True)
        mine, theirs = channel.pair()
        # The cgroup namespace is left to the child (see there): here it would get the wrong root.
        kinds = [OCI_KINDS[entry["type"]] for entry in self.config["linux"]["namespaces"] if entry["type"] != "cgroup"]
        sys.stdout.flush()
        sys.stderr.flush()
        fd = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pid = syscalls.clone3(namespaces.flags(kinds), cgroup_fd=fd)
        except OSError as error:
            raise Refused(f"cannot make namespaces: {error}", why=_clone_cause(error), next="labkit doctor") from error
        finally:
            os.close(fd)
        if pid == 0:
            mine.close()
            child.main(theirs, self.config, self.root, target, stdio, init)
        theirs.close()
        self._channel = mine
        self.pid = pid
        self.start_time = process.start_time(pid) or 0
        self.ledger.record("process", pid=pid, start=self.start_time)
        return pid

    def start(self, endpoint: dict[str, Any] | None = None, console: Callable[[int], int] | None = None) -> None:
        """Let the waiting process go on to execve; return when the command runs.

        endpoint -- its network, as labkit.network gives it; console -- called with the pid
        when the process wants a terminal, returns the number of the pts.
        Raises the LabError that the process met on its way.
        """
        assert self._channel is not None
        self._channel.send({"endpoint": endpoint})
        while (message := self._channel.receive()) is not None:
            if message.get("stage") == "console" and console is not None:
                self._channel.send({"pts": console(self.pid)})
            elif "error" in message:
                os.waitpid(self.pid, 0)
                words = message["error"]
                kind = getattr(errors, message["kind"])
                raise kind(words["what"], why=words["why"], next=words["next"], status=words["status"])
        self._channel.close()

    def wait(self) -> int:
        """The exit status as a shell has it: 128 + signal when a signal ended it."""
        while True:
            try:
                _, status = os.waitpid(self.pid, 0)
                break
            except InterruptedError:
                continue
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def forward_signals(self) -> None:
        """Pass what reaches this process on to the container's process 1."""

        def pass_on(number: int, frame: FrameType | None) -> None:
            process.kill(self.pid, self.start_time, number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, pass_on)

    def oom_kills(self) -> int:
        """How often the kernel killed here for want of memory; 0 where nobody counts."""
        try:
            return cgroups.read_table(self.cgroup, "memory.events").get("oom_kill", 0) if self.cgroup else 0
        except OSError:
            return 0


def make_cgroup(config: dict[str, Any], ledger: Ledger) -> Path:
    """The cgroup of config.json's cgroupsPath, with its limits. Raises LabError."""
    top = cgroups.root()
    files = units.cgroup_files(config["linux"]["resources"])
    needed = {name.partition(".")[0] for name in files}
    cgroups.require(needed, CONTROLLER_OPTIONS)
    group = top / str(config["linux"]["cgroupsPath"]).lstrip("/")
    parent = group.parent
    # memory, cpu and pids are counted for every container where the machine can, for `labkit stats`.
    wanted = needed | ({"memory", "cpu", "pids"} & set(cgroups.controllers(top)))
    shared = Ledger("cgroup-" + parent.name)
    if not parent.is_dir():
        shared.record("cgroup", path=str(parent))
        parent.mkdir(exist_ok=True)
    missing = wanted - set((top / "cgroup.subtree_control").read_text().split())
    if missing:
        shared.record("controllers", path=str(top), names=" ".join(sorted(missing)))
        cgroups.enable(top, missing)
    cgroups.enable(parent, wanted)
    ledger.record("cgroup", path=str(group))
    cgroups.create(group)
    if not (group / "memory.swap.max").exists():
        files.pop("memory.swap.max", None)  # a kernel that counts no swap (CONFIG_SWAP=n) gives none
    cgroups.limit(group, files)
    return group


def release_cgroup_parent(parent: str = "labkit") -> None:
    """Give the common parent cgroup back when no container is left in it."""
    ledger = Ledger("cgroup-" + parent)
    for entry in ledger.entries():
        if entry.kind == "cgroup" and any(path.is_dir() for path in Path(str(entry.fields["path"])).glob("*")):
            return
    ledger.release_all()


def _clone_cause(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"new namespaces need CAP_SYS_ADMIN, and this is user {os.geteuid()}"
    if error.errno == errno.ENOSPC:
        return "a limit of /proc/sys/user/max_*_namespaces is reached"
    return ""


def require_root() -> None:
    """Raise Refused unless this process may make namespaces and mounts for others."""
    if os.geteuid() != 0:
        raise Refused(
            "labkit run needs root",
            why=f"this is user {os.geteuid()}: mounts, cgroups and bridges belong to root",
            next="in the lab's machine you are root: labkit guest exec -- labkit run ...",
        )
