"""it lies in the history"""

import gzip
import json
import os
import re

KEY = rb"lab-key-[0-9a-f]{24}"


def keys(layout, digest):
    """Every key that can be read out of an image: a set of words such as lab-key-00112233445566778899aabb."""

    def read(digest):
        with open(os.path.join(layout, "blobs", "sha256", digest.removeprefix("sha256:")), "rb") as blob:
            return blob.read()

    manifest = read(digest)
    parts = json.loads(manifest)
    texts = [manifest, json.dumps(json.loads(read(parts["config"]["digest"]))["config"]).encode()]
    for layer in parts["layers"]:
        data = read(layer["digest"])
        texts.append(gzip.decompress(data) if layer["mediaType"].endswith("gzip") else data)
    return {found.decode() for text in texts for found in re.findall(KEY, text)}
