"""Floor 2: an image layout on disk, written from layers and a configuration that were made here.

Owns: the five kinds of file of a layout, and that the same layers give the same digests.

Read: the OCI image specification, image-layout, manifest and config.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from labkit.image import model, tarball
from labkit.image.tarball import Entry, Layer

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def layout(output: Path, tag: str, layers: list[tuple[str, list[Entry]]], config: dict[str, Any], when: int) -> None:
    """Write an OCI image layout of one image. The same packages give the same digests.

    layers -- what the history says of each, and its entries
    when -- seconds since 1970: the image's time, and that of every entry without one
    """
    write(output, tag, [(said, tarball.layer(entries, when)) for said, entries in layers], config, when)


def write(output: Path, tag: str, packed: list[tuple[str, Layer]], config: dict[str, Any], when: int) -> None:
    """The same of layers that are packed already, since another image stands on them too."""
    created = datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {
        "architecture": model.host_platform().partition("/")[2],
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for _, layer in packed]},
        "history": [{"created": created, "created_by": f"labkit.image.kit: {said}"} for said, _ in packed],
    }
    config_blob = json.dumps(document, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": model.MANIFESTS[0],
        "config": describe(model.CONFIGS[0], config_blob),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar+gzip", layer.data) for _, layer in packed],
    }
    manifest_blob = json.dumps(manifest, sort_keys=True).encode()
    (output / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    for blob in (config_blob, manifest_blob, *(layer.data for _, layer in packed)):
        _blob(output, blob)
    entry = describe(model.MANIFESTS[0], manifest_blob)
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": model.INDEXES[0], "manifests": [entry]}
    (output / "index.json").write_text(json.dumps(index, indent=1))
    (output / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')


def _blob(output: Path, data: bytes) -> None:
    """A blob in its place."""
    (output / "blobs" / "sha256" / tarball.sha256(data).removeprefix("sha256:")).write_bytes(data)


def describe(media_type: str, data: bytes) -> dict[str, Any]:
    """The descriptor of a blob."""
    return {"mediaType": media_type, "digest": tarball.sha256(data), "size": len(data)}
