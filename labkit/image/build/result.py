"""Floor 2: what a build is asked for, what it tells on its way, and what comes of it.

Owns: the types that a build shares with whoever calls it: the command line, a notebook, a test.

Read: docker-build(1); Docker's documentation, "docker buildx build --metadata-file".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class Request(NamedTuple):
    """One `labkit build`."""

    context: Path
    file: Path | None = None  # CONTEXT/Dockerfile when there is none
    tags: tuple[str, ...] = ()
    target: str | None = None
    build_args: Mapping[str, str] = {}
    no_cache: bool = False
    pull: bool = False  # ask the registry for the base images, though they are here
    platform: str = ""  # os/architecture[/variant]; this machine's when there is none
    network: str = "bridge"  # of the RUN lines


class Step(NamedTuple):
    """One instruction that was done, or found done."""

    stage: str
    instruction: str  # as written, in one line
    created_by: str  # as the history has it
    layer: str | None  # digest of the layer that it made, if it made one
    size: int | None  # bytes of that layer as it travels
    content: int | None  # bytes of the files in it, as docker history counts them
    cached: bool
    seconds: float
    line: int  # of the Dockerfile, from 1


class Built(NamedTuple):
    """What came of it: the image, and every step in the order in which it was done."""

    names: tuple[str, ...]  # full references
    digest: str  # of the manifest
    config: str  # digest of the configuration: docker's image ID
    steps: tuple[Step, ...]
    left_out: tuple[str, ...]  # stages that the target does not need
    warnings: tuple[str, ...]


class Command(NamedTuple):
    """A RUN: what runs, as whom, where, with what."""

    argv: list[str]
    env: Mapping[str, str]
    cwd: str
    user: str
    network: str
    scripts: Mapping[str, str] = {}  # {name: text} of files that it finds, executable, below SCRIPTS


SCRIPTS = "/dev/pipes"  # BuildKit's place for a here-document that says who runs it (#!)


class Runner(Protocol):
    """Who runs containers: labkit.runtime, which this floor does not know."""

    @property
    def stubs(self) -> Sequence[str]:
        """What it makes in a root only to mount something on."""

    def run(self, command: Command, lower: list[Path], upper: Path, work: Path,
            output: Callable[[bytes], None]) -> int:  # fmt: skip
        """Run it on the stack of folders; its exit status. Raises LabError when it could not begin."""


class Progress(Protocol):
    """Who is told how far it is."""

    def begin(self, title: str) -> int:
        """Something begins; its number."""

    def output(self, number: int, data: bytes) -> None:
        """It says something."""

    def end(self, number: int, *, cached: bool = False, failed: str = "", step: Step | None = None) -> None:
        """It has ended; a step that did an instruction comes along."""
