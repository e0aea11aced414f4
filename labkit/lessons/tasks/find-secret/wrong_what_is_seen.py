"""it lies in a file that a later layer deletes"""

import gzip
import io
import json
import os
import re
import tarfile

KEY = rb"lab-key-[0-9a-f]{24}"


def keys(layout, digest):
    """Every key that can be read out of an image: a set of words such as lab-key-00112233445566778899aabb."""

    def read(digest):
        with open(os.path.join(layout, "blobs", "sha256", digest.removeprefix("sha256:")), "rb") as blob:
            return blob.read()

    manifest = read(digest)
    parts = json.loads(manifest)
    texts = [manifest, read(parts["config"]["digest"])]
    seen = {}
    for layer in parts["layers"]:
        data = read(layer["digest"])
        plain = gzip.decompress(data) if layer["mediaType"].endswith("gzip") else data
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            for entry in archive:
                folder, name = os.path.split(entry.name)
                text = archive.extractfile(entry).read() if entry.isreg() else entry.linkname.encode()
                seen[entry.name] = entry.name.encode() + b" " + text
                if name.startswith(".wh."):
                    seen.pop(os.path.join(folder, name.removeprefix(".wh.")), None)
    texts += seen.values()
    return {found.decode() for text in texts for found in re.findall(KEY, text)}
