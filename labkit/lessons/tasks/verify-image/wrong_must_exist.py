"""raised FileNotFoundError"""

import gzip
import hashlib
import json
import os


def broken(layout, digest):
    """Which promises of an image do its bytes not keep? A list of digests, empty when all is well."""

    def read(promised, size=None):
        """The bytes of a blob, or None where they are not what was promised."""
        path = os.path.join(layout, "blobs", "sha256", promised.removeprefix("sha256:"))
        with open(path, "rb") as blob:
            data = blob.read()
        hashed = "sha256:" + hashlib.sha256(data).hexdigest()
        return data if hashed == promised and size in (None, len(data)) else None

    manifest = read(digest)
    if manifest is None:
        return [digest]
    parts = json.loads(manifest)
    found = []
    config = read(parts["config"]["digest"], parts["config"]["size"])
    if config is None:
        found.append(parts["config"]["digest"])
    diff_ids = json.loads(config)["rootfs"]["diff_ids"] if config else [None] * len(parts["layers"])
    for layer, diff_id in zip(parts["layers"], diff_ids, strict=True):
        data = read(layer["digest"], layer["size"])
        if data is None:
            found.append(layer["digest"])
        elif diff_id and "sha256:" + hashlib.sha256(gzip.decompress(data)).hexdigest() != diff_id:
            found.append(diff_id)
    return found
