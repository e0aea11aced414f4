"""Floor 2: RUN: a command on the layers so far; what it changes is a layer.

Owns: which command line, environment and here-documents it means, and what its layer depends on.

Read: Docker's "Dockerfile reference", RUN and "Here-documents".
"""

from __future__ import annotations

import re
from pathlib import Path

from labkit.errors import LabError
from labkit.image.build import cache
from labkit.image.build.building import Building, Outcome
from labkit.image.build.dockerfile import Instruction
from labkit.image.build.lines import HEREDOC
from labkit.image.build.problems import at, blame
from labkit.image.build.result import SCRIPTS, Command
from labkit.image.build.settings import PROXIES
from labkit.image.build.stage import Making

KEPT = 20  # lines of its output that an error shows
NETWORKS = {"default": "", "none": "none", "host": "host"}  # of RUN --network


def run(build: Building, stage: Making, one: Instruction) -> Outcome:
    """Do it, or find it done. Raises LabError, which points at the line."""
    command = _command(build, stage, one)
    facts = command._replace(env={name: value for name, value in command.env.items() if name not in PROXIES})
    name = cache.key("RUN", stage.chain, command=facts, when=stage.when)
    said = _Tail(build)

    def make(place: Path, lower: list[Path]) -> None:
        from labkit.image.build.inside import Stack  # costs 10 ms, and most lines of most builds are known

        stack = Stack(lower, place)
        lower = stack.make()
        try:
            status = build.runner.run(command, lower, stack.upper, stack.work, said)
        except LabError as error:
            raise blame(one.place, error) from error
        if status:
            raise _failed(one, status, said.text())

    layer, cached = build.layered(stage, name, make, runs=True)
    return Outcome(stage.settings.ran(command.argv), layer, cached)


def _command(build: Building, stage: Making, one: Instruction) -> Command:
    settings = stage.settings
    network = one.option("network") or "default"
    if network not in NETWORKS:
        raise at(one.place, f"RUN --network={network} is not known", why=f"it is one of {', '.join(NETWORKS)}")
    words: tuple[str, ...] = one.args
    scripts: dict[str, str] = {}
    if one.heredocs and not one.exec:
        words, scripts = _heredocs(one)
    argv = [f"{SCRIPTS}/{next(iter(scripts))}"] if scripts else settings.command(one, words)
    network = NETWORKS[network] or build.request.network
    return Command(argv, settings.environment(), settings.workdir, settings.user, network, scripts)


def _heredocs(one: Instruction) -> tuple[tuple[str, ...], dict[str, str]]:
    """(the shell's words, files to run): RUN <<EOF alone is a script; behind a command the shell reads it."""
    if HEREDOC.fullmatch(re.sub(r"[\"']", "", one.args[0])):
        first = one.heredocs[0]
        if first.data.startswith("#!"):
            return (), {first.name: first.data}
        return (first.data,), {}
    return ("\n".join([one.args[0], *(f"{each.raw}{each.name}" for each in one.heredocs)]),), {}


class _Tail:
    """Passes output on, and remembers its end."""

    def __init__(self, build: Building) -> None:
        self.build = build
        self.end = b""

    def __call__(self, data: bytes) -> None:
        self.build.progress.output(self.build.number, data)
        self.end = (self.end + data)[-8192:]

    def text(self) -> str:
        """Its last lines."""
        lines = self.end.decode(errors="replace").rstrip().split("\n")
        return "\n".join(f"        {line}" for line in lines[-KEPT:] if line.strip())


def _failed(one: Instruction, status: int, said: str) -> LabError:
    ended = f"it ended with status {status}" if status <= 128 else f"signal {status - 128} ended it"
    return at(one.place, "the command failed", why=f"{ended}; it said:\n{said}" if said else ended,
              next="the layers before it are kept: mend the line, and build again", kind=LabError,
              status=status)  # fmt: skip
