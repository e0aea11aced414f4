"""Floor 3: containers from Python, for notebooks: a program is started, never a system call made.

Owns: the wrapper around the `labkit` command.  A notebook's process has a dozen threads,
so the kernel would refuse it most of what a container needs; see labkit.kernel.syscalls.

    with launch.run("localhost:5000/nginx", memory="256m", publish=["8080:80"]) as box:
        print(box.pid, box.exec("hostname"))
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from labkit.errors import LabError

LABKIT = [sys.executable, "-m", "labkit"]


def labkit(*arguments: str, check: bool = True, **extra: Any) -> subprocess.CompletedProcess[str]:
    """Run the `labkit` command; with `check`, its error message becomes a LabError."""
    done = subprocess.run([*LABKIT, *arguments], capture_output=True, text=True, **extra)
    if check and done.returncode:
        raise LabError(done.stderr.strip() or f"labkit {arguments[0]} failed", status=done.returncode)
    return done


class Box:
    """A container that runs in the background; leaving the `with` removes it."""

    def __init__(self, identifier: str) -> None:
        self.id = identifier

    @property
    def state(self) -> dict[str, Any]:
        """Everything `labkit ps` knows about it. Raises LabError when it is gone."""
        for one in json.loads(labkit("ps", "--all", "--json").stdout):
            if one["id"] == self.id:
                found: dict[str, Any] = one
                return found
        raise LabError(f"container {self.id[:12]} is gone", next="labkit ps --all")

    @property
    def pid(self) -> int:
        """Its process 1, as the machine numbers it."""
        return int(self.state["pid"])

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.state["name"])

    def exec(self, *command: str) -> str:
        """What a command printed that ran inside it. Raises LabError when it fails."""
        return labkit("exec", self.id, *command).stdout

    def logs(self) -> str:
        """What it has printed so far."""
        return labkit("logs", self.id).stdout

    def stop(self) -> None:
        """Its stop signal, and SIGKILL ten seconds later."""
        labkit("stop", self.id)

    def remove(self) -> None:
        """Kill it if it runs, and forget it; nothing is left. Twice is fine."""
        labkit("rm", "--force", self.id, check=False)

    def __enter__(self) -> Box:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def run(image: str, *command: str, publish: Sequence[str] = (), **options: str | int | bool) -> Box:
    """Start a container in the background.

    Options are those of `labkit run` with _ for -: run("localhost:5000/nginx", memory="256m",
    cpus=1, pids_limit=4096, publish=["8080:80"]).  Raises LabError.
    """
    words = ["run", "--detach"]
    for port in publish:
        words += ["--publish", port]
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        words += [flag] if value is True else [flag, str(value)]
    return Box(labkit(*words, image, *command).stdout.strip())
