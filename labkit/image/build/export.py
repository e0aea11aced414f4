"""Floor 2: a finished stage becomes an image in the store.

Owns: its configuration and its manifest, and its names. The same stage makes the same bytes.

Read: the OCI image specification: manifest, config.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from labkit.image import model
from labkit.image.build.stage import Making, stamp
from labkit.image.store import Store


def export(store: Store, stage: Making, names: Sequence[str]) -> tuple[str, str]:
    """(digest of the manifest, digest of the configuration); `names` are full references. Raises LabError."""
    system, architecture, variant = (*stage.platform.split("/"), "", "")[:3]
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": system,
        **({"variant": variant} if variant else {}),
        **({"author": stage.settings.author} if stage.settings.author else {}),
        "created": stamp(stage.when),
        "config": stage.settings.config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in stage.layers]},
        "history": list(stage.history),
    }
    described = _put(store, config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": model.MANIFESTS[0],
        "config": {"mediaType": model.CONFIGS[0], **described},
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in stage.layers
        ],
    }
    digest = str(_put(store, manifest)["digest"])
    known = store.names()
    for name in names:
        if known.get(name) != digest:
            store.tag(name, digest)
    return digest, str(described["digest"])


def _put(store: Store, document: dict[str, Any]) -> dict[str, object]:
    data = json.dumps(document, sort_keys=True).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if not store.holds(digest):
        store.put(BytesIO(data), digest, len(data), "a document of the new image")
    return {"digest": digest, "size": len(data)}
