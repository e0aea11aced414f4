"""Floor 2: a stage while it is made: its layers, its settings, its history.

Owns: beginning with an image, with nothing, or with another stage; taking a layer; the folders of the
layers that it stands on; and the time that its files get.

A build's time, when SOURCE_DATE_EPOCH does not say it, is the `created` of the image that the stage begins
with; of scratch, the latest of the stages before it, or else the start of 1980, the first day that zip
archives know.  The same Dockerfile on the same base is then the same image on any day.  No file of a new
layer is younger; a file of the context gets that time whatever its own is, since a checkout's times are
those of the checkout.

Read: the OCI image specification, config; reproducible-builds.org, SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.image import layers, model
from labkit.image.build.cache import Layer, above
from labkit.image.build.settings import PATH, Settings
from labkit.image.store import Image, Store

OLDEST = 315_532_800  # 1980-01-01T00:00:00Z, in seconds since 1970
COMMENT = "labkit build"
# Docker's names for layers: the bytes are the same.
OCI_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
}


class Making:
    """One stage on its way."""

    def __init__(self, store: Store, settings: Settings, platform: str, when: int) -> None:
        self.store = store
        self.settings = settings
        self.platform = platform
        self.when = when  # seconds since 1970
        self.layers: list[Layer] = []
        self.chain = ""  # the chain ID of the layers; "" for none
        self.history: list[Mapping[str, Any]] = []
        self.triggers: list[str] = []  # the ONBUILD of the image that it begins with

    @classmethod
    def of_image(cls, image: Image, outer: Mapping[str, str], given: Mapping[str, str], escape: str,
                 epoch: int | None) -> Making:  # fmt: skip
        """A stage that begins with an image."""
        document = image.store.document(image.manifest.config.digest)
        settings = Settings(image.config.config, outer, given, escape)
        settings.author = document.get("author")
        platform = "/".join(filter(None, (image.config.os, image.config.architecture, document.get("variant"))))
        made = cls(image.store, settings, platform, seconds(document.get("created")) if epoch is None else epoch)
        for layer, diff_id in image.stack:
            kind = OCI_LAYERS.get(layer.media_type, layer.media_type)
            made.take(Layer(kind, layer.digest, layer.size, diff_id, -1))
        made.history = list(image.config.history)
        made.triggers = [str(each) for each in image.config.config.get("OnBuild") or []]
        return made

    @classmethod
    def of_scratch(cls, store: Store, platform: str, outer: Mapping[str, str], given: Mapping[str, str], escape: str,
                   when: int) -> Making:  # fmt: skip
        """A stage that begins with nothing; BuildKit gives it these two settings too."""
        settings = Settings({"Env": [PATH], "WorkingDir": "/"}, outer, given, escape)
        return cls(store, settings, platform, when)

    def begin_with(self) -> Making:
        """A stage that begins with this one, as it is now."""
        made = Making(self.store, self.settings.copy(), self.platform, self.when)
        made.layers, made.chain, made.history = list(self.layers), self.chain, list(self.history)
        made.triggers = [str(each) for each in self.settings.config.get("OnBuild") or []]
        return made

    def take(self, layer: Layer) -> None:
        """One more layer on top."""
        self.layers.append(layer)
        self.chain = above(self.chain, layer.diff_id)

    def note(self, created_by: str, layer: Layer | None) -> None:
        """One more line of the history."""
        line = {"created": stamp(self.when), "created_by": created_by, "comment": COMMENT}
        self.history.append(line if layer is not None else {**line, "empty_layer": True})

    def folders(self) -> list[Path]:
        """The unpacked layers, bottom first; unpacked now where they are not. Raises LabError."""
        listed = [model.Descriptor(each.media_type, each.digest, each.size, {}, {}) for each in self.layers]
        nothing = model.Descriptor(model.CONFIGS[0], "", 0, {}, {})
        config = model.Config("", "", {}, [each.diff_id for each in self.layers], [])
        return layers.layer_folders(Image("a stage", "", model.Manifest(nothing, listed), config, self.store))


def seconds(created: object) -> int:
    """Seconds since 1970 of an RFC 3339 time; OLDEST for what is none, or is older."""
    try:
        # Whole seconds: Python reads six digits of a fraction, Docker writes nine.
        text = str(created)
        when = datetime.datetime.fromisoformat(text[:19]).replace(tzinfo=datetime.UTC)
        return max(OLDEST, int(when.timestamp()))
    except (ValueError, OverflowError):
        return OLDEST


def stamp(when: int) -> str:
    """An RFC 3339 time, as configurations have it."""
    return datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
