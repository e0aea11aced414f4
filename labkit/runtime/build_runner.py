"""Floor 3: the RUN lines of a build as containers, started the way `labkit run` starts them.

Owns: a container whose writable folder is the build's: cgroup, network, devices and capabilities are those
of `labkit run`; its output goes to the build; all else is given back when the command has ended.  What a
killed build left in the ledger, the next build gives back.

Read: labkit.image.build.result, Runner; Docker's "Dockerfile reference", RUN.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from labkit.image.build.result import SCRIPTS, Command
from labkit.kernel import process, removal
from labkit.kernel.ledger import Ledger, all_ledgers
from labkit.runtime import container, run, spec, state, user, wiring
from labkit.storage.overlay import Root
from labkit.storage.volumes import Volume

HOSTNAME = "labkit-build"  # the same each time, since a program may write it into a file
ROLE = "build"


class Containers:
    """The Runner of `labkit build`."""

    # What the runtime mounts on, and makes where an image lacks it.
    stubs = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/dev", "/sys")

    def __init__(self) -> None:
        self.warnings: list[str] = []  # what the containers do without on this machine

    def run(self, command: Command, lower: list[Path], upper: Path, work: Path,
            output: Callable[[bytes], None]) -> int:  # fmt: skip
        """Run it; its exit status, 128 + the signal's number when one ended it. Raises LabError."""
        identifier = os.urandom(32).hex()
        folder, ledger, me = state.folder(identifier), Ledger(identifier), os.getpid()
        where = wiring.understand(command.network)
        # The first entry says whose it is: see `sweep`.
        ledger.record("process", pid=me, start=process.start_time(me) or 0, role=ROLE)
        try:
            ledger.record("directory", path=str(folder))
            folder.mkdir(parents=True)
            root, target = Root(lower, upper, work), folder / "rootfs"
            target.mkdir()
            config = spec.build(_options(command, folder, where), {}, cgroups_path=container.cgroups_path(identifier))
            run.write_etc(folder, config)
            spec.become(config, user.in_layers(command.user or "", root, target))
            (folder / "config.json").write_text(json.dumps(config))
            one = container.Container(identifier, config, root, folder, ledger)
            return self._live(one, where, output)
        finally:
            run.give_back(ledger, keep=False)

    def _live(self, one: container.Container, where: wiring.Wiring, output: Callable[[bytes], None]) -> int:
        inward, outward = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            one.run([null, outward, outward], lambda: wiring.connect(one, {"name": one.id[:12]}, where))
            os.close(outward)
            outward = -1
            while data := os.read(inward, 65536):
                output(data)
            self.warnings += [each for each in one.warnings if each not in self.warnings]
            return one.wait()
        finally:
            for fd in (inward, outward, null):
                if fd >= 0:
                    os.close(fd)


def _options(command: Command, folder: Path, where: wiring.Wiring) -> spec.Options:
    volumes = []
    if command.scripts:
        scripts = folder / "scripts"
        scripts.mkdir()
        for name, text in command.scripts.items():
            (scripts / name).write_text(text)
            (scripts / name).chmod(0o755)
        volumes.append(Volume(scripts, SCRIPTS, ["ro"]))
    return spec.Options(
        command=command.argv,
        entrypoint="",  # no image's either
        hostname=os.uname().nodename if where.mode == "host" else HOSTNAME,
        env=tuple(f"{name}={value}" for name, value in command.env.items()),
        volumes=tuple(volumes),
        network=command.network,
        network_path=where.path,
        workdir=command.cwd,
    )


def sweep() -> int:
    """Give back what builds that were killed left; how many there were."""
    count = 0
    for ledger in list(all_ledgers()):
        entries = ledger.entries()
        first = entries[0] if entries else None
        if first is None or first.fields.get("role") != ROLE:
            continue
        if process.is_alive(int(first.fields["pid"]), int(first.fields["start"])):
            continue
        run.give_back(ledger, keep=False)
        with contextlib.suppress(OSError):  # the next build tries again
            removal.remove(state.folder(ledger.owner))
        count += 1
    return count
