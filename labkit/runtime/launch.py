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
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from labkit.errors import LabError
from labkit.image.build.result import Built, Step
from labkit.runtime import state

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
        """Everything `labkit ps` knows about it. Raises NotFound when it is gone."""
        return state.find(self.id)

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


class Build(NamedTuple):
    """What `labkit build` made: see labkit.image.build.result."""

    built: Built
    log: str  # what it told, as --progress plain does


def build(context: str | Path, *, build_args: Mapping[str, str] | None = None, **options: str | bool | Path) -> Build:
    """Build the Dockerfile in the folder `context`.

    Options are those of `labkit build` with _ for -: build("app", tag="localhost:5000/app", target="test",
    no_cache=True).  Raises LabError with the line of the Dockerfile.
    """
    with tempfile.NamedTemporaryFile("r") as metadata:
        words = ["build", "--progress", "plain", "--metadata-file", metadata.name]
        for name, value in (build_args or {}).items():
            words += ["--build-arg", f"{name}={value}"]
        for option, given in options.items():
            flag = "--" + option.replace("_", "-")
            words += [flag] if given is True else [] if given is False else [flag, str(given)]
        done = labkit(*words, str(context))
        document = json.load(metadata)
    steps = tuple(Step(**step) for step in document.pop("steps"))
    return Build(Built(**{**document, "steps": steps}), done.stderr)


def run(
    image: str, *command: str, publish: Sequence[str] = (), replace: bool = False, **options: str | int | bool
) -> Box:
    """Start a container in the background; with `replace`, one that has its name goes first (a cell run twice).

    Options are those of `labkit run` with _ for -: run("localhost:5000/nginx", memory="256m",
    cpus=1, pids_limit=4096, publish=["8080:80"]).  Raises LabError.
    """
    if replace and "name" in options:
        labkit("rm", "--force", str(options["name"]), check=False)
    words = ["run", "--detach"]
    for port in publish:
        words += ["--publish", port]
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        words += [flag] if value is True else [flag, str(value)]
    return Box(labkit(*words, image, *command).stdout.strip())
