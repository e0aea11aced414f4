"""Floor 3: `labkit build`: a Dockerfile to an image.

Owns: its options, spelt as docker spells them, and what it prints: how far it is on standard error, and
with --quiet the image's digest on standard output.

Read: docker-build(1).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from labkit import paths
from labkit.errors import BadInput
from labkit.image.build import progress
from labkit.image.build.builder import build as make
from labkit.image.build.result import Built, Command, Request
from labkit.image.store import Store
from labkit.runtime import ending
from labkit.runtime.parser import Parser


def build(argv: list[str]) -> int:
    """labkit build [OPTIONS] CONTEXT"""
    given = _parser().parse_args(argv)
    if os.geteuid() != 0:
        from labkit.runtime import container  # costs 15 ms

        container.require_root()
    ending.unwind()
    os.umask(0o022)
    request = Request(
        context=Path(given.context),
        file=Path(given.file) if given.file else None,
        tags=tuple(given.tag),
        target=given.target,
        build_args=dict(_pair(text) for text in given.build_arg if "=" in text or text in os.environ),
        no_cache=given.no_cache,
        pull=given.pull,
        platform=given.platform,
        network=given.network,
    )
    _sweep()
    runner = _Containers()
    told = progress.make("quiet" if given.quiet else given.progress, sys.stderr)
    built = make(Store(), request, runner, told)
    for warning in (*built.warnings, *runner.warnings):
        print(f"labkit build: {warning}", file=sys.stderr)
    if given.metadata_file:
        Path(given.metadata_file).write_text(json.dumps(document(built), indent=1) + "\n")
    if given.iidfile:
        Path(given.iidfile).write_text(built.digest)
    if given.quiet:
        print(built.digest)
    elif not built.names:
        print(f"labkit build: {built.digest} has no name, so labkit prune removes it; --tag NAME gives it one",
              file=sys.stderr)  # fmt: skip
    return 0


def document(built: Built) -> dict[str, object]:
    """The result as JSON; labkit.runtime.launch reads it back."""
    return {**built._asdict(), "steps": [step._asdict() for step in built.steps]}


def _parser() -> Parser:
    parser = Parser(
        prog="labkit build",
        description="make an image from a Dockerfile; what is unchanged since the last build is not done again",
        epilog="SOURCE_DATE_EPOCH=SECONDS in the environment sets the time of all that is new in the image; else "
        "it is the time of the base image. The same Dockerfile, context and base make the same digest.",
        allow_abbrev=False,
    )
    parser.add_argument("-t", "--tag", action="append", default=[], metavar="NAME[:TAG]", help="the image's name")
    parser.add_argument("-f", "--file", metavar="FILE", help="instead of CONTEXT/Dockerfile")
    parser.add_argument("--target", metavar="STAGE", help="make this stage, and only what it needs")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="a value for an ARG")
    parser.add_argument("--no-cache", action="store_true", help="do every step, though it was done before")
    parser.add_argument(
        "--pull", action="store_true", help="ask the registry for the base images, though they are here"
    )
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="which of a base image's platforms")
    parser.add_argument("--network", default="bridge", metavar="NETWORK", help="of RUN: bridge (default), none, host")
    parser.add_argument("--progress", default="auto", choices=["auto", *progress.FORMS], help="how it is told")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the digest, and nothing else")
    parser.add_argument("--metadata-file", metavar="FILE", help="write what came of it, each step too, as JSON")
    parser.add_argument("--iidfile", metavar="FILE", help="write the digest there")
    parser.add_argument("context", metavar="CONTEXT", help="the folder that COPY and ADD take files from")
    return parser


def _pair(text: str) -> tuple[str, str]:
    """NAME=VALUE; NAME alone passes the caller's value on."""
    name, equals, value = text.partition("=")
    if not name:
        raise BadInput(f"--build-arg {text} has no name", next="--build-arg NAME=VALUE")
    return name, value if equals else os.environ[name]


class _Containers:
    """The Runner, imported when a command runs: a build of which nothing changed starts no container."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @property
    def stubs(self) -> Sequence[str]:
        """See Runner."""
        from labkit.runtime.build_runner import Containers

        return Containers.stubs

    def run(self, command: Command, lower: list[Path], upper: Path, work: Path,
            output: Callable[[bytes], None]) -> int:  # fmt: skip
        """See Runner."""
        from labkit.runtime.build_runner import Containers

        ending.check()
        containers = Containers()
        try:
            return containers.run(command, lower, upper, work, output)
        finally:
            self.warnings += [each for each in containers.warnings if each not in self.warnings]


def _sweep() -> None:
    """Give back what killed builds left, if there may be something."""
    if any((paths.run() / "ledger").glob("*.jsonl")):
        from labkit.runtime.build_runner import sweep

        sweep()
