"""Floor 2: a build, from the Dockerfile to an image in the store.

Owns: the order: read, plan, the stages that are needed, each instruction of each, the image; and what is
told on the way.

Read: docker-build(1); Docker's "Dockerfile reference".
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from labkit.errors import LabError, NotFound
from labkit.image import drafts, layers, model, reference
from labkit.image.build import dockerfile, plan
from labkit.image.build.building import Building, Outcome, epoch
from labkit.image.build.dockerfile import Dockerfile, Instruction
from labkit.image.build.export import export
from labkit.image.build.plan import SCRATCH, Planned
from labkit.image.build.problems import at, blame, taught
from labkit.image.build.result import Built, Progress, Request, Runner, Step
from labkit.image.build.settings import PROXIES
from labkit.image.build.stage import OLDEST, Making
from labkit.image.build.words import expand
from labkit.image.store import Store

FILLING = ("COPY", "ADD", "WORKDIR")
COUNTED = ("RUN", *FILLING)  # as [2/4] in what is told


def build(store: Store, request: Request, runner: Runner, progress: Progress) -> Built:
    """Raises LabError, which points at the line; what was whole by then is kept, and found by the next build."""
    return _Builder(store, request, runner, progress).build()


class _Builder(Building):
    """One build, done."""

    def __init__(self, store: Store, request: Request, runner: Runner, progress: Progress) -> None:
        super().__init__(store, request, runner, progress)
        self.steps: list[Step] = []
        self.epoch = epoch()

    def build(self) -> Built:
        names = tuple(str(reference.parse(tag)) for tag in self.request.tags)
        platform = self.request.platform or model.host_platform()
        with self.store.in_use():
            sweep(self.store)
            file = self._read()
            self.outer = _outer(file, self.request.build_args, platform)
            whole = plan.make(file, self.request.target, self.outer)
            self.planned = whole.stages
            for planned in whole.stages:
                self._stage(file, planned, platform)
            digest, config = self._export(self.made[whole.target.stage.number], names)
        if "hashes" in self.__dict__:
            self.hashes.keep()
        left_out = tuple(stage.label for stage in whole.left_out)
        return Built(names, digest, config, tuple(self.steps), left_out, self._warnings(file))

    def _read(self) -> Dockerfile:
        name = self.dockerfile.name
        number = self.progress.begin(f"[internal] load build definition from {name}")
        try:
            data = self.dockerfile.read_bytes()
        except OSError as error:
            self.progress.end(number, failed=str(error))
            raise NotFound(f"cannot read {self.dockerfile}", why=str(error.strerror),
                           next="labkit build --file FILE CONTEXT", status=1) from error  # fmt: skip
        self.progress.output(number, f"{len(data)} bytes\n".encode())
        try:
            file = dockerfile.read(data, name)
        except LabError as error:
            self.progress.end(number, failed=error.what.partition("\n")[0])
            raise
        self.progress.end(number)
        return file

    def _warnings(self, file: Dockerfile) -> tuple[str, ...]:
        every = [one for stage in file.stages for one in stage.instructions]
        known = {key for one in [*file.globals, *every] if one.name == "ARG" for key, _ in one.pairs}
        unused = sorted(set(self.request.build_args) - known - PROXIES)
        return (f"no ARG names the --build-arg {', '.join(unused)}",) if unused else ()

    # --- stages --------------------------------------------------------------------------

    def _stage(self, file: Dockerfile, planned: Planned, platform: str) -> None:
        stage = self._begin(file, planned, platform)
        ours = planned.stage
        instructions = (*dockerfile.triggers(stage.triggers, ours, planned.base), *ours.instructions)
        several = len(file.stages) > 1
        total = (planned.base != SCRATCH) + sum(one.name in COUNTED for one in instructions)
        count = 0

        def title(text: str) -> str:
            label = f"{ours.label} " if several or ours.name else ""
            return f"[{label}{str(count).rjust(len(str(total)))}/{total}] {text}"

        if planned.base != SCRATCH:
            count += 1
            self.progress.end(self.progress.begin(title(f"FROM {ours.start.args[0]}")), cached=True)
        for one in instructions:
            if one.name in COUNTED:
                count += 1
                said = f"{'ONBUILD ' if one.trigger else ''}{one.text}"
                self._layer(planned, stage, one, title(said.partition("\n")[0]))
            else:
                self._setting(planned, stage, one)
        self.made[ours.number] = stage

    def _begin(self, file: Dockerfile, planned: Planned, platform: str) -> Making:
        start = planned.stage.start
        wanted = planned.platform or platform
        given = self.request.build_args
        if planned.base_stage is not None:
            return self.made[planned.base_stage].begin_with()
        if planned.base == SCRATCH:
            when = max((made.when for made in self.made.values()), default=OLDEST)
            when = when if self.epoch is None else self.epoch
            return Making.of_scratch(self.store, wanted, self.outer, given, file.escape, when)
        try:
            name = str(reference.parse(planned.base))
            number = self.progress.begin(f"[internal] load metadata for {name}")
            try:
                image = None if self.request.pull else self.store.find(name)
                explicit = planned.platform or self.request.platform
                if image is None or (explicit and not model.fits(_platform(image.config), explicit)):
                    image = self.store.pull(name, explicit or None)
            except LabError as error:
                self.progress.end(number, failed=error.what.partition("\n")[0])
                raise
            self.progress.end(number)
        except LabError as error:
            earlier = [one.label for one in file.stages[: planned.stage.number] if one.name]
            known = f"; stages before it: {', '.join(earlier)}" if earlier else ""
            for one in file.stages[planned.stage.number :]:
                if one.name == planned.base.lower():
                    known += f"; the stage {one.name} begins in line {one.start.place.first}, not before this one"
            next_ = error.next or "labkit pull it, or another image"
            raise at(start.place, error.what, why=f"{error.why}{known}", next=next_, kind=type(error)) from error
        return Making.of_image(image, self.outer, given, file.escape, self.epoch)

    # --- instructions --------------------------------------------------------------------

    def _setting(self, planned: Planned, stage: Making, one: Instruction) -> None:
        began = time.monotonic()
        try:
            said = stage.settings.apply(one)
        except LabError as error:
            raise blame(one.place, error) from error
        if said:
            stage.note(said, None)
        self._done(planned, one, Outcome(said, None, True), began)

    def _layer(self, planned: Planned, stage: Making, one: Instruction, title: str) -> None:
        began = time.monotonic()
        self.number = self.progress.begin(title)
        try:
            done = self._do(planned, stage, one)
        except (LabError, OSError) as error:
            problem = taught(error, f"{one.name} cannot be done")
            self.progress.end(self.number, failed=problem.what.partition("\n")[0])
            if problem is error and problem.what.startswith(str(one.place)):
                raise
            raise blame(one.place, problem) from error
        if done.layer is not None:
            stage.take(done.layer)
        stage.note(done.created_by, done.layer)
        step = self._done(planned, one, done, began)
        self.progress.end(self.number, cached=done.cached, step=step)

    def _do(self, planned: Planned, stage: Making, one: Instruction) -> Outcome:
        if one.name == "RUN":
            from labkit.image.build.running import run

            return run(self, stage, one)
        from labkit.image.build import filling

        if one.name == "WORKDIR":
            return filling.workdir(self, stage, one)
        return filling.copy(self, planned, stage, one)

    def _done(self, planned: Planned, one: Instruction, done: Outcome, began: float) -> Step:
        layer = done.layer
        step = Step(
            planned.stage.label,
            one.text,
            done.created_by,
            layer.digest if layer else None,
            layer.size if layer else None,
            layer.content if layer else None,
            done.cached,
            round(time.monotonic() - began, 4),
            one.place.first,
        )
        self.steps.append(step)
        return step

    # --- the image -----------------------------------------------------------------------

    def _export(self, stage: Making, names: tuple[str, ...]) -> tuple[str, str]:
        number = self.progress.begin("exporting to image")
        if not stage.layers:
            self.progress.end(number, failed="there is no layer")
            raise LabError("the image would have no layer", why="it begins with scratch, and nothing makes a file",
                           next="COPY something into it", status=1)  # fmt: skip
        try:
            digest, config = export(self.store, stage, names)
        except (LabError, OSError) as error:
            problem = taught(error, "the image cannot be written")
            self.progress.end(number, failed=problem.what)
            raise problem from problem.__cause__
        self.progress.output(number, f"writing image {config} done\n".encode())
        for name in names:
            self.progress.output(number, f"naming to {name} done\n".encode())
        self.progress.end(number)
        return digest, config


def sweep(store: Store) -> None:
    """Remove what killed builds left beside the layers and the blobs."""
    for folder in (layers.folder(), store.blobs):
        if folder.is_dir() and any(name.startswith(drafts.PREFIX) for name in os.listdir(folder)):
            with drafts.locked(folder):
                drafts.sweep(folder)


def _platform(config: model.Config) -> str:
    return f"{config.os}/{config.architecture}"


def _outer(file: Dockerfile, given: Mapping[str, str], platform: str) -> dict[str, str]:
    """The variables of FROM lines: the ARGs before the first one, and the platforms. Raises BadInput."""
    found: dict[str, str] = {}
    for prefix, each in (("TARGET", platform), ("BUILD", model.host_platform())):
        system, architecture, variant = (*each.split("/"), "", "")[:3]
        found |= {f"{prefix}PLATFORM": each, f"{prefix}OS": system, f"{prefix}ARCH": architecture}
        found[f"{prefix}VARIANT"] = variant
    for one in file.globals:
        for key, default in one.pairs:
            try:
                value = given.get(key, None if default is None else expand(default, found, file.escape))
            except LabError as error:
                raise blame(one.place, error) from error
            if value is not None:
                found[key] = value
    return found
