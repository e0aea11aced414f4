"""Floor 2: what all steps of a build have in common: the request, the store, the context, and the cache.

Owns: a step that makes a layer: looked up by its key, or made in a draft that becomes a layer when it is
whole.  What a killed build leaves is such a draft, which the next one sweeps.

Read: labkit.image.drafts; labkit.image.build.cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError, NotFound
from labkit.image import layers
from labkit.image.build import cache
from labkit.image.build.cache import Layer
from labkit.image.build.context import Tree, open_context
from labkit.image.build.hashes import Hashes
from labkit.image.build.plan import Planned
from labkit.image.build.result import Progress, Request, Runner
from labkit.image.build.stage import Making
from labkit.image.store import Store


class Outcome(NamedTuple):
    """What a step came to."""

    created_by: str
    layer: Layer | None
    cached: bool


class Building:
    """One build."""

    def __init__(self, store: Store, request: Request, runner: Runner, progress: Progress) -> None:
        self.store = store
        self.request = request
        self.runner = runner
        self.progress = progress
        self.made: dict[int, Making] = {}  # stages that are finished
        self.images: dict[str, Making] = {}  # images that COPY --from names
        self.number = 0  # of the step that is running, for its output

    @property
    def dockerfile(self) -> Path:
        """The file that is read."""
        return self.request.file or self.request.context / "Dockerfile"

    @cached_property
    def context(self) -> Tree:
        """The context: looked at only when something is copied from it. Raises NotFound."""
        return open_context(self.request.context, self.dockerfile)

    @cached_property
    def hashes(self) -> Hashes:
        """What its files hash to."""
        return Hashes(self.request.context)

    def source(self, planned: Planned, name: str) -> Making:
        """The stage or the image that COPY --from names. Raises NotFound."""
        if name in planned.sources:
            return self.made[planned.sources[name]]
        if name not in self.images:
            listed = ", ".join(one.stage.name for one in self.planned if one.stage.name) or "none has a name"
            try:
                image = self.store.obtain(name)
            except LabError as error:
                raise NotFound(
                    f"there is no stage {name!r}, and no image of that name can be had",
                    why=f"stages: {listed}; {error.what}: {error.why}",
                    next="FROM ... AS NAME gives a stage its name; an image: labkit pull",
                ) from error
            self.images[name] = Making.of_image(image, {}, {}, "\\", None)
        return self.images[name]

    planned: Sequence[Planned] = ()

    def layered(self, stage: Making, name: str, make: Callable[[Path, list[Path]], bool | None],
                *, runs: bool = False) -> tuple[Layer | None, bool]:  # fmt: skip
        """(the layer of the step called `name` in the cache, whether it was known).

        make(place, lower) -- works on the layers `lower` in the folder `place`, whose `upper` becomes the
        layer; False when there is nothing to keep.  runs -- it starts a container.  Raises what it raises.
        """
        if not self.request.no_cache and (known := cache.recall(self.store, name)) is not None:
            return known[1], True
        from labkit.image.build.layer import seal
        from labkit.image.drafts import draft

        lower = stage.folders()
        with draft(layers.folder(), directory=True) as place:
            kept = make(place, lower)
            upper = place / "upper"
            stubs = self.runner.stubs if runs else ()
            layer = None if kept is False else seal(self.store, upper, lower, stage.chain, stage.when, stubs)
        cache.remember(name, stage.chain, layer)
        return layer, False


def epoch() -> int | None:
    """SOURCE_DATE_EPOCH of the environment, seconds since 1970."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else None
