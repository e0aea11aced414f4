"""Floor 2: which stages a build needs, in which order.

Owns: the meaning of a name behind FROM and behind COPY --from (a stage, or else an image), the target,
and finding a circle.  A stage that the target does not need is not in the plan: it is never made.

Read: Docker's documentation, "Multi-stage builds".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from labkit.errors import BadInput, NotFound
from labkit.image.build.dockerfile import Dockerfile, Instruction, Stage
from labkit.image.build.problems import at
from labkit.image.build.words import expand

SCRATCH = "scratch"  # FROM scratch: no layer at all


class Planned(NamedTuple):
    """One stage that is made."""

    stage: Stage
    base: str  # the image it begins with, or SCRATCH; "" when it begins with another stage
    base_stage: int | None
    platform: str  # of its FROM, or ""
    sources: Mapping[str, int]  # what COPY --from says: the stage that it means; others are images


class Plan(NamedTuple):
    """The stages, each behind those that it needs; the last one is the target."""

    stages: tuple[Planned, ...]
    left_out: tuple[Stage, ...]

    @property
    def target(self) -> Planned:
        """What becomes the image."""
        return self.stages[-1]


def make(file: Dockerfile, target: str | None, variables: Mapping[str, str]) -> Plan:
    """variables -- those of FROM lines: the ARGs before the first FROM, and the platforms.

    Raises BadInput, NotFound, which point at the line.
    """
    planned = {stage.number: _plan(file, stage, variables) for stage in file.stages}
    wanted = _target(file, target)
    order: list[int] = []
    _visit(wanted.number, planned, order, [])
    left_out = tuple(stage for stage in file.stages if stage.number not in order)
    return Plan(tuple(planned[index] for index in order), left_out)


def _target(file: Dockerfile, target: str | None) -> Stage:
    if target is None:
        return file.stages[-1]
    for stage in file.stages:
        if target.lower() == stage.name or target == str(stage.number):
            return stage
    listed = ", ".join(stage.name or str(stage.number) for stage in file.stages)
    raise NotFound(f"{file.file} has no stage {target!r}", why=f"its stages are: {listed}", next="another --target",
                   status=1)  # fmt: skip


def _plan(file: Dockerfile, stage: Stage, variables: Mapping[str, str]) -> Planned:
    start = stage.start
    base = _expanded(start, start.args[0], variables, file.escape)
    platform = _expanded(start, start.option("platform") or "", variables, file.escape)
    if not base:
        raise at(start.place, "FROM names no image", why=f"{start.args[0]} is empty",
                 next="an ARG with a value before the first FROM, or --build-arg")  # fmt: skip
    earlier = {one.name: one.number for one in file.stages[: stage.number] if one.name}
    sources = {}
    for each in stage.instructions:
        if (source := each.option("from")) is not None:
            found = _source(file, each, source, stage)
            if found is not None:
                sources[source] = found
    base_stage = earlier.get(base.lower())
    return Planned(stage, "" if base_stage is not None else base, base_stage, platform, sources)


def _expanded(start: Instruction, text: str, variables: Mapping[str, str], escape: str) -> str:
    try:
        return expand(text, variables, escape)
    except BadInput as error:
        raise at(start.place, error.what, why=error.why, next=error.next) from error


def _source(file: Dockerfile, copy: Instruction, source: str, here: Stage) -> int | None:
    """The stage that COPY --from means; None for an image."""
    found = next((one.number for one in file.stages if one.name and one.name == source.lower()), None)
    if found is None and source.isdigit():
        found = int(source)
        if found >= len(file.stages):
            raise at(copy.place, f"there is no stage {source}",
                     why=f"{file.file} has {len(file.stages)}, counted from 0",
                     next="name the stage: FROM IMAGE AS NAME", kind=NotFound)  # fmt: skip
    if found == here.number:
        raise at(copy.place, f"COPY --from={source} copies from its own stage", why="it is not made yet",
                 next="leave --from out to copy from the context, or RUN cp")  # fmt: skip
    return found


def _visit(index: int, planned: Mapping[int, Planned], order: list[int], path: list[int]) -> None:
    if index in order:
        return
    if index in path:
        circle = [planned[each].stage for each in [*path[path.index(index) :], index]]
        copies = next((each for each in circle[0].instructions
                       if planned[circle[0].number].sources.get(each.option("from") or "") == circle[1].number),
                      circle[0].start)  # fmt: skip
        raise at(copies.place, "stages need each other in a circle", why=" needs ".join(one.label for one in circle),
                 next="move what both need into a stage of its own")  # fmt: skip
    each = planned[index]
    for needed in (each.base_stage, *each.sources.values()):
        if needed is not None:
            _visit(needed, planned, order, [*path, index])
    order.append(index)
