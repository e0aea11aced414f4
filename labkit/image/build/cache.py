"""Floor 2: steps that were made before: their key, and the layer that came of them.

Owns: $LABKIT_DATA/build/steps, one small file a key.  A key is a hash over all that a step depends on:
the content of the layers below (their chain ID), the command or the content that is copied, and the
settings that matter to it.  A record is a hint: it counts only while the store has the layer.

Read: the OCI image specification, config ("Layer ChainID"); Docker's documentation, "Build cache".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from labkit import paths
from labkit.image.layers import chain_ids
from labkit.image.store import Store

VERSION = 1  # of what a step makes out of the same input; another number forgets all


class Layer(NamedTuple):
    """One layer of an image that is being built; sizes in bytes."""

    media_type: str
    digest: str
    size: int  # as it travels, compressed
    diff_id: str
    content: int  # of the files in it, as docker history counts; -1 when nobody has counted


def key(kind: str, chain: str, **facts: object) -> str:
    """The name of a step: the same input, the same name."""
    whole = json.dumps([VERSION, kind, chain, facts], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def folder() -> Path:
    """Where the records lie."""
    return paths.data() / "build" / "steps"


def recall(store: Store, name: str) -> tuple[str, Layer | None] | None:
    """(chain ID of the layers below, the layer or None for a step that changed nothing); None when unknown."""
    return _read(store, folder() / name)


def _read(store: Store, file: Path) -> tuple[str, Layer | None] | None:
    try:
        below, layer = json.loads(file.read_bytes())
        if layer is None:
            return str(below), None
        found = Layer(*layer)
        if store.path(found.digest).stat().st_size != found.size:
            return None
    except (OSError, ValueError, TypeError):
        return None  # nothing there, or half of it: as if it were not
    return str(below), found


def remember(name: str, below: str, layer: Layer | None) -> None:
    """Write a record, whole or not at all. Raises OSError."""
    folder().mkdir(parents=True, exist_ok=True)
    draft = folder() / f".{name}.{os.getpid()}"
    draft.write_text(json.dumps([below, layer]))
    draft.rename(folder() / name)


def held(store: Store) -> tuple[set[str], set[str]]:
    """The digests of the blobs, and the chain IDs of the unpacked layers, that records stand on."""
    blobs, chains = set[str](), set[str]()
    for file in records():
        known = _read(store, file)
        if known is None:
            continue
        below, layer = known
        if below:
            chains.add(below)
        if layer is not None:
            blobs.add(layer.digest)
            chains.add(above(below, layer.diff_id))
    return blobs, chains


def above(below: str, diff_id: str) -> str:
    """The chain ID of one more layer."""
    return chain_ids([below, diff_id])[-1] if below else diff_id


def records() -> Iterator[Path]:
    """Every file of the cache, drafts of the dead and the contexts' hashes too."""
    for place in (folder(), folder().with_name("contexts")):
        if place.is_dir():
            yield from sorted(place.iterdir())
