"""Floor 2: the three documents that an image is: index, manifest, configuration.

Owns: their typed forms, the media types that are understood, and choosing a platform.

Read: the OCI image specification 1.1: descriptor, image-index, manifest, config.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

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

NEXT = "another tag of the image, or ask whoever built it; crane manifest shows what the registry has"
# Layers whose bytes no registry may hand out have one of these words in their type.
FOREIGN = ("foreign", "nondistributable")
# The variant that is meant when none is named.
USUAL_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}

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
            media_type, digest, size = document["mediaType"], document["digest"], document["size"]
        except (KeyError, TypeError) as error:
            raise BadInput(f"this is no descriptor: {document!r:.300}", why=f"it lacks {error}", next=NEXT) from error
        wrong = ""
        if not isinstance(media_type, str):
            wrong = f"its mediaType is {media_type!r:.80}"
        elif not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            wrong = f"{digest!r:.80} is no sha256 digest"
        elif type(size) is not int or size < 0:
            wrong = f"its size is {size!r:.80}"
        platform, annotations = document.get("platform") or {}, document.get("annotations") or {}
        for each in (platform, annotations):
            if not isinstance(each, Mapping):
                wrong = wrong or f"{each!r:.80} is no object"
        if wrong:
            raise BadInput(f"this is no descriptor: {document!r:.300}", why=wrong, next=NEXT)
        return cls(media_type, digest, size, _strings(platform), _strings(annotations))


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
            raise BadInput("this is no image's manifest", why=f"it lacks {error}", next=NEXT) from error
        manifest = cls(Descriptor.read(config), [Descriptor.read(layer) for layer in layers])
        if manifest.config.media_type not in CONFIGS:
            raise BadInput(
                "this is no container image",
                why=f"its configuration is of type {manifest.config.media_type}",
                next="an artifact of another kind can be looked at with crane manifest",
            )
        for layer in manifest.layers:
            if layer.media_type not in LAYERS:
                _refuse(layer)
        return manifest


def _refuse(layer: Descriptor) -> NoReturn:
    if any(word in layer.media_type for word in FOREIGN):
        raise BadInput(
            f"a layer is of the foreign type {layer.media_type}",
            why="its bytes lie elsewhere than in registries",
            next="Windows images have such layers, and need a Windows kernel",
        )
    raise BadInput(f"a layer is of the unknown type {layer.media_type}", why=layer.digest, next=NEXT)


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
        what = "this is no image's configuration"
        try:
            diff_ids = listed(document["rootfs"], "diff_ids", what)
        except (KeyError, TypeError) as error:
            raise BadInput(what, why=f"it lacks {error}", next=NEXT) from error
        for diff_id in diff_ids:
            if not isinstance(diff_id, str) or not DIGEST.fullmatch(diff_id):
                raise BadInput(
                    "an image's configuration is false", why=f"{diff_id!r:.80} is no sha256 digest", next=NEXT
                )
        config, history = document.get("config") or {}, document.get("history") or []
        if not isinstance(config, Mapping) or not isinstance(history, list):
            raise BadInput(
                "an image's configuration is false", why="config is an object and history a list, or absent", next=NEXT
            )
        architecture, system = str(document.get("architecture", "")), str(document.get("os", ""))
        return cls(architecture, system, config, diff_ids, [each for each in history if isinstance(each, Mapping)])


def _strings(mapping: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in mapping.items() if isinstance(value, str)}


def listed(document: Mapping[str, Any], key: str, what: str) -> list[Any]:
    """A list of a document. Raises BadInput."""
    try:
        found = document[key]
    except (KeyError, TypeError) as error:
        raise BadInput(what, why=f"it lacks {error}", next=NEXT) from error
    if not isinstance(found, list):
        raise BadInput(what, why=f"its {key} is no list", next=NEXT)
    return found


def parse(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises BadInput for anything else."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:  # RecursionError: a thousand brackets
        raise BadInput(f"{what} is no JSON", why=str(error), next=NEXT) from error
    if not isinstance(document, dict):
        raise BadInput(f"{what} is no JSON object", why=f"it is a {type(document).__name__}", next=NEXT)
    return document


def kind(document: Mapping[str, Any]) -> str:
    """index or manifest. Raises BadInput for anything else (schema 1 among it)."""
    named = document.get("mediaType", "")
    if named in INDEXES or (not named and "manifests" in document):
        return "index"
    if named in MANIFESTS or (not named and "layers" in document):
        return "manifest"
    raise BadInput(f"documents of type {named or 'unknown'} are not understood", next="crane manifest shows it",
                   why="it is neither an index nor a manifest")  # fmt: skip


def host_platform() -> str:
    """This machine's platform, such as linux/amd64."""
    machine = os.uname().machine
    return f"linux/{ARCHITECTURES.get(machine, machine)}"


def fits(offered: str, asked: str) -> bool:
    """Does what is offered run where it is asked for; both os/architecture[/variant]."""
    place, variant = _split(offered)
    asked_place, asked_variant = _split(asked)
    return place == asked_place and (not asked_variant or _usual(place, variant) == asked_variant)


def _split(platform: str) -> tuple[str, str]:
    system, architecture, variant = (*platform.split("/"), "", "")[:3]
    return f"{system}/{architecture}", variant


def _usual(place: str, variant: str) -> str:
    return variant or USUAL_VARIANT.get(place.partition("/")[2], "")


def choose(index: Mapping[str, Any], platform: str) -> Descriptor:
    """The manifest of an index for `platform` (os/architecture[/variant]).

    Raises NotFound, listing the platforms that there are.
    """
    found = [Descriptor.read(entry) for entry in listed(index, "manifests", "this is no index")]
    # Builders put attestations beside the images; their platform is unknown/unknown.
    offers = [(entry, _platform(entry)) for entry in found if entry.platform.get("os") not in (None, "unknown")]
    place, variant = _split(platform)
    for wanted in (platform, f"{place}/{_usual(place, variant)}".rstrip("/"), ""):
        for entry, offered in offers:
            if offered == wanted or (not wanted and fits(offered, platform)):
                return entry
    listing = ", ".join(sorted({offered for _, offered in offers})) or "no platform"
    raise NotFound(
        f"the image is not made for {platform}", why=f"it is for {listing}", next="another image, or another tag of it"
    )


def _platform(entry: Descriptor) -> str:
    parts = (entry.platform.get(part, "") for part in ("os", "architecture", "variant"))
    return "/".join(parts).rstrip("/")
