"""Floor 3: a container of `labkit run`: a bundle of its own, made and started by this house's OCI runtime.

Owns: what an engine adds to a runtime: the stack of layers as the root, who the user is in numbers, the cgroup
in the ledger, the network between create and start; and waiting for the end.  How a container is born stands in
labkit.runtime.life, which podman and dockerd use as well.

Read: the OCI runtime specification, "Lifecycle".
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from labkit import paths
from labkit.errors import LabError, Refused
from labkit.kernel import cgroups, mounts, namespaces, process
from labkit.kernel.ledger import Entry, Ledger
from labkit.runtime import cgroup_texts, flags, state
from labkit.runtime.groups import cgroupfs
from labkit.runtime.life import maker, verbs
from labkit.runtime.life.store import Store
from labkit.storage.overlay import Root

PARENT = "labkit"  # the cgroup above all containers'
NOT_RUN = 125
COUNTED = {"cpu", "io", "memory", "pids"}


def place() -> Store:
    """Where the runtime remembers the containers of `labkit run`: `labkit-runtime --root` takes it too."""
    return Store(paths.run() / "runtime")


class Container:
    """One container on its way from config.json to the end of its process 1.

    folder -- its bundle, with config.json in it; root -- its layers, shown on folder/rootfs inside its mount
    namespace only; ledger -- who owns it all.
    """

    def __init__(self, identifier: str, config: dict[str, Any], root: Root, folder: Path, ledger: Ledger) -> None:
        self.id = identifier
        self.config = config
        self.root = root
        self.folder = folder
        self.ledger = ledger
        self.cgroup: Path | None = None
        self.warnings: list[str] = []  # what it does without on this machine
        self.pid = 0
        self.start_time = 0

    def run(self, stdio: list[int], connect: Callable[[], None]) -> verbs.Terminal:
        """Make it, let `connect` give it what its network needs, and start its program.

        Returns the terminal, if it has one, for `attend`.  Raises LabError; what was acquired is in the ledger.
        """
        rootless = namespaces.nested()
        if rootless:
            self.ledger.record("cgroup", path=cgroupfs.path(self.config, self.id, rootless=True))
        else:
            with state.locked():
                self.cgroup = make_cgroup(self.config, self.ledger)
        runtime = place()
        # Where the runtime remembers it, and which process it is: known before they are there.
        self.ledger.record("directory", path=runtime.folder(self.id))

        def ready(made: dict[str, Any]) -> None:
            self.pid, self.start_time = made["pid"], made["start"]
            if rootless and made["cgroup"]:
                self.cgroup = Path(made["cgroup"])
            self.ledger.record("process", pid=self.pid, start=self.start_time)
            connect()

        terminal = verbs.Terminal(self.config["process"]["terminal"])
        options = maker.Options(
            bundle=self.folder, wait=False, console=terminal.line, stdio=(stdio[0], stdio[1], stdio[2]),
            stack=self._show, ready=ready, warn=self.warnings.append, rootless=rootless,
        )  # fmt: skip
        try:
            maker.create(runtime, self.id, options)
        except LabError as error:
            # A runtime's failure is 1; an engine's, which is no program's status, 125 (docker-run(1)).
            error.status = NOT_RUN if error.status == 1 else error.status
            raise
        return terminal

    def _show(self, target: str) -> None:
        self.root.mount(Path(target))
        # With the nodes of /dev bound from the machine, no other device need open in here.
        mounts.reflag(target, ["nodev"])

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

    @property
    def group(self) -> str:
        """Its cgroup as /proc/PID/cgroup has it; "" without one."""
        return f"/{self.cgroup.relative_to(cgroups.root())}" if self.cgroup else ""

    def oom_kills(self) -> int:
        """How often the kernel killed here for want of memory; 0 where nobody counts."""
        try:
            return cgroups.read_table(self.cgroup, "memory.events").get("oom_kill", 0) if self.cgroup else 0
        except LabError:
            return 0


def cgroups_path(identifier: str) -> str:
    """linux.cgroupsPath: below one cgroup for all; of an ordinary user below the one that the user is in."""
    return identifier if namespaces.nested() else f"/{PARENT}/{identifier}"


def make_cgroup(config: dict[str, Any], ledger: Ledger) -> Path:
    """The cgroup of config.json's cgroupsPath; the runtime writes its limits. Raises LabError."""
    top = cgroups.root()
    resources = config["linux"]["resources"]
    needed = {name.partition(".")[0] for name in cgroup_texts.files(resources)}
    cgroups.require(needed, flags.purposes(resources), top)
    group = top / str(config["linux"]["cgroupsPath"]).lstrip("/")
    parent = group.parent
    # These are counted for every container where the machine can, for `labkit stats`.
    wanted = needed | (COUNTED & set(cgroups.controllers(top)))
    shared = Ledger("cgroup-" + parent.name)
    # Before the common cgroup: given back in reverse, since a controller stays while a child hands it on.
    missing = wanted - set((top / "cgroup.subtree_control").read_text().split())
    if missing:
        shared.record("controllers", path=str(top), names=" ".join(sorted(missing)))
        cgroups.enable(top, missing)
    if not parent.is_dir():
        shared.record("cgroup", path=str(parent))
        parent.mkdir(exist_ok=True)
    if handed := wanted - set((parent / "cgroup.subtree_control").read_text().split()):
        shared.record("controllers", path=str(parent), names=" ".join(sorted(handed)))
        cgroups.enable(parent, handed)
    ledger.record("cgroup", path=str(group))
    cgroups.create(group)
    return group


def release_cgroup_parent(parent: str = PARENT) -> list[Entry]:
    """Give the common parent cgroup back when nothing is left in it, not even another's cgroup."""
    ledger = Ledger("cgroup-" + parent)
    entries = ledger.entries()
    if not entries:
        return ledger.release_all()  # a killed process may have left the file, all of it struck out
    below = [path.name for path in (cgroups.root() / parent).glob("*") if path.is_dir()]
    ours = any(entry.kind == "cgroup" for entry in entries)  # else somebody made it before us
    if any(len(name) == 64 for name in below) or (ours and below):  # a container's id has 64 digits
        return []
    return ledger.release_all()


def require_root() -> None:
    """Raise Refused unless this process may make namespaces and mounts for others."""
    if os.geteuid() != 0:
        raise Refused(
            "containers need root",
            why=f"this is user {os.geteuid()}: mounts, cgroups and bridges belong to root",
            next="in the lab's machine you are root: labkit guest exec -- labkit run ...",
        )
