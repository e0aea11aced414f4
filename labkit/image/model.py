"""Floor 2: the three documents that an image is: index, manifest, configuration.

Owns: their typed forms, the media types that are understood, and choosing a platform.

Read: the OCI image specification 1.1: descriptor, image-index, manifest, config.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from labkit.errors import BadInput, NotFound
from labkit.image.reference import DIGEST

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
# media type of a layer: how its tar is compressed
LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
}

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # uname -m: the name that images use


class Descriptor(NamedTuple):
    """A pointer to a blob: what it is, its hash, its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Mapping[str, str]
    annotations: Mapping[str, str]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Descriptor:
        """From JSON. Raises BadInput where a needed field is missing, or the digest is none."""
        try:
            if not DIGEST.fullmatch(str(document["digest"])):
                raise ValueError(f"{document['digest']!r} is no sha256 digest")
            return cls(
                str(document["mediaType"]),
                str(document["digest"]),
                int(document["size"]),
                document.get("platform") or {},
                document.get("annotations") or {},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"this is no descriptor: {document}", why=f"{error!r}") from error


class Manifest(NamedTuple):
    """One image for one platform: a configuration and layers, bottom first."""

    config: Descriptor
    layers: list[Descriptor]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Manifest:
        """From JSON. Raises BadInput for media types that are not an image's."""
        try:
            config, layers = document["config"], list(document["layers"])
        except (KeyError, TypeError) as error:
            raise BadInput("this is no image's manifest", why=f"it lacks {error}") from error
        manifest = cls(Descriptor.read(config), [Descriptor.read(layer) for layer in layers])
        if manifest.config.media_type not in CONFIGS:
            raise BadInput(
                "this is no container image",
                why=f"its configuration is of type {manifest.config.media_type}",
                next="an artifact of another kind can be looked at with crane manifest",
            )
        for layer in manifest.layers:
            if layer.media_type not in LAYERS:
                raise BadInput(f"a layer is of the unknown type {layer.media_type}", why=layer.digest)
        return manifest


class Config(NamedTuple):
    """The configuration: how to run it, and the hashes of the uncompressed layers."""

    architecture: str
    os: str
    config: Mapping[str, Any]  # Env, Cmd, Entrypoint, WorkingDir, User, ExposedPorts, StopSignal, Labels
    diff_ids: list[str]
    history: list[Mapping[str, Any]]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Config:
        """From JSON. Raises BadInput; a diff_id becomes a folder's name, so it must be a hash."""
        try:
            diff_ids = list(document["rootfs"]["diff_ids"])
        except (KeyError, TypeError) as error:
            raise BadInput("this is no image's configuration", why=f"it lacks {error}") from error
        for diff_id in diff_ids:
            if not DIGEST.fullmatch(str(diff_id)):
                raise BadInput("an image's configuration is false", why=f"{diff_id!r} is no sha256 digest")
        return cls(
            str(document.get("architecture", "")),
            str(document.get("os", "")),
            document.get("config") or {},
            diff_ids,
            list(document.get("history") or []),
        )


def parse(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises BadInput for anything else."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BadInput(f"{what} is no JSON", why=str(error)) from error
    if not isinstance(document, dict):
        raise BadInput(f"{what} is no JSON object")
    return document


def kind(document: Mapping[str, Any]) -> str:
    """index or manifest. Raises BadInput for anything else (schema 1 among it)."""
    named = document.get("mediaType", "")
    if named in INDEXES or (not named and "manifests" in document):
        return "index"
    if named in MANIFESTS or (not named and "layers" in document):
        return "manifest"
    raise BadInput(f"documents of type {named or 'unknown'} are not understood", next="crane manifest shows it")


def host_platform() -> str:
    """This machine's platform, such as linux/amd64."""
    machine = os.uname().machine
    return f"linux/{ARCHITECTURES.get(machine, machine)}"


def choose(index: Mapping[str, Any], platform: str) -> Descriptor:
    """The manifest of an index for `platform` (os/architecture[/variant]).

    Raises NotFound, listing the platforms that there are.
    """
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    found = [Descriptor.read(entry) for entry in index["manifests"]]
    for entry in found:
        described = entry.platform
        if (described.get("os"), described.get("architecture")) == (system, architecture) and (
            not variant or described.get("variant") == variant
        ):
            return entry
    offered = sorted({f"{e.platform.get('os')}/{e.platform.get('architecture')}" for e in found if e.platform})
    raise NotFound(f"the image is not made for {platform}", why=f"it is for {', '.join(offered) or 'no platform'}")
