"""Top floor: the check of find-secret.

Owns: an image with a key in each place where builds leave them, and another without any.
Read: the OCI image specification, config ("history") and annotations.
"""

from __future__ import annotations

import gzip
import hashlib
import json

from labkit.image import kit, tarball
from labkit.lessons.outcome import Wrong

PLACES = {
    "deleted": "in a file that a later layer deletes",
    "env": "in a variable of the environment, in the configuration",
    "history": "in the history: a build argument, in the line of its step",
    "label": "in an annotation of the manifest",
    "link": "in the target of a symbolic link",
    "plain": "in a layer that is not compressed",
    "name": "in the name of a file",
}


def key(lab):
    return f"lab-key-{lab.number(0, 16**24 - 1):024x}"


def image(folder, lab, planted):
    """An image with these keys in it; the digest of its manifest."""
    words = {place: planted.get(place, "nothing") for place in PLACES}
    gone = lab.token()
    layers = [
        ("the base", [tarball.folder("etc"), tarball.file(f"etc/{gone}", f"user={lab.token()}\n{words['deleted']}\n")]),
        ("the program", [tarball.symlink(lab.token(), f"/{words['link']}"), tarball.file(f"run/{words['name']}", "")]),
        ("cleaned up", [tarball.file(f"etc/.wh.{gone}", "")]),
        ("settings", [tarball.file(lab.token(), f"password {words['plain']}\n")]),
    ]
    kit.layout(folder, "1", layers, {"Env": [f"TOKEN={words['env']}"]}, 1_500_000_000)
    blobs = folder / "blobs" / "sha256"
    top = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]

    def put(data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def take(digest):
        path = blobs / digest.removeprefix("sha256:")
        data = path.read_bytes()
        path.unlink()
        return data

    manifest = json.loads(take(top))
    config = json.loads(take(manifest["config"]["digest"]))
    config["history"][1]["created_by"] = f"RUN |1 KEY={words['history']} fetch"
    last = manifest["layers"][-1]
    last.update(put(gzip.decompress(take(last["digest"]))), mediaType="application/vnd.oci.image.layer.v1.tar")
    manifest["config"].update(put(json.dumps(config).encode()))
    manifest["annotations"] = {"org.example.build": words["label"]}
    return put(json.dumps(manifest).encode())["digest"]


def check(keys, lab):
    """The function runs in a child; each image has other keys."""
    child = lab.child()
    for places in (list(PLACES), []):
        folder = lab.folder() / "layout"
        planted = {place: key(lab) for place in places}
        digest = image(folder, lab, planted)
        found = child.do(keys, str(folder), digest)
        if not isinstance(found, set | list | tuple) or not all(isinstance(word, str) for word in found):
            raise Wrong(f"a set of words is wanted; {found!r:.80} came back")
        missed = [PLACES[place] for place, word in planted.items() if word not in found]
        if missed:
            raise Wrong(f"a key was missed: it lies {'; another one '.join(missed)}")
        if odd := set(found) - set(planted.values()):
            raise Wrong(f"{sorted(odd)[0]!r:.60} came back, and is no key of this image")
