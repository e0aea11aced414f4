"""Floor 2: a layer on top of an image makes another image.

Owns: what is written for it: the layer, a configuration with one more diff_id, a manifest
with one more layer, and a name.  Every blob of the image below is used again as it is.

Read: the OCI image specification: manifest, config ("rootfs", "history"), image-layout.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from labkit.image import reference
from labkit.image.diff import diff
from labkit.image.store import CHUNK, Image, Store

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def commit(store: Store, base: Image, upper: Path, name: str, said: str = "", when: int = 0) -> Image:
    """The image `name`: `base`, and on top what the writable folder `upper` changed.

    said -- what made the layer, for the history; when -- seconds since 1970.
    Raises BadInput for a folder that cannot be a layer, or a name that is none.
    """
    full = str(reference.parse(name))
    with store.in_use():
        _write(store, base, upper, full, said, when)
    found = store.find(full)
    assert found is not None
    return found


def _write(store: Store, base: Image, upper: Path, full: str, said: str, when: int) -> None:
    with tempfile.TemporaryFile() as plain, tempfile.TemporaryFile() as packed:
        diff(upper, plain)
        diff_id, _ = _measure(plain)
        # No name and no time in the gzip header, else equal layers would differ.
        with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as squeeze:
            shutil.copyfileobj(plain, cast("IO[bytes]", squeeze), CHUNK)
        digest, size = _measure(packed)
        store.put(packed, digest, size, f"the new layer of {full}")
    layer = {"mediaType": LAYER, "digest": digest, "size": size}
    created = datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifest = store.document(base.digest)
    config = store.document(base.manifest.config.digest)
    config["created"] = created
    config["rootfs"] = {"type": "layers", "diff_ids": [*base.config.diff_ids, diff_id]}
    config["history"] = [*base.config.history, {"created": created, "created_by": said}]
    manifest["layers"] = [*manifest["layers"], layer]
    manifest["config"] = {**manifest["config"], **_put(store, config)}
    top = _put(store, manifest)
    store.tag(full, str(top["digest"]))


def _measure(file: IO[bytes]) -> tuple[str, int]:
    """(digest, bytes) of a whole file, which then stands at its beginning again."""
    file.seek(0)
    digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    size = file.tell()
    file.seek(0)
    return digest, size


def _put(store: Store, document: dict[str, object]) -> dict[str, object]:
    data = json.dumps(document, sort_keys=True).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    store.put(BytesIO(data), digest, len(data), "a document of an image")
    return {"digest": digest, "size": len(data)}
