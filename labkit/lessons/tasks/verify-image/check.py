"""Top floor: the check of verify-image.

Owns: small images, one for each way in which one can be broken, and what must be found in it.
Read: the OCI image specification, descriptor ("Digests", "Verification") and config ("Layer DiffID").
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

from labkit.image import kit, tarball
from labkit.lessons.outcome import Wrong


class Made:
    """An image in a layout of its own, its documents at hand."""

    def __init__(self, folder, lab):
        layers = [(f"step {n}", [tarball.file(lab.token(), lab.token(200))]) for n in range(lab.number(3, 5))]
        kit.layout(folder, "1", layers, {"Cmd": [lab.token()]}, 1_500_000_000)
        self.blobs = folder / "blobs" / "sha256"
        self.digest = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
        self.manifest = self.document(self.digest)
        self.config = self.document(self.manifest["config"]["digest"])
        self.layers = self.manifest["layers"]
        self.which = lab.number(0, len(self.layers) - 2)

    def path(self, digest) -> Path:
        return self.blobs / digest.removeprefix("sha256:")

    def document(self, digest):
        return json.loads(self.path(digest).read_bytes())

    def put(self, data) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.path(digest).write_bytes(data)
        return digest

    def again(self) -> None:
        """Write configuration and manifest anew, under their true names: only what they say can be false."""
        data = json.dumps(self.config).encode()
        self.manifest["config"].update(digest=self.put(data), size=len(data))
        self.digest = self.put(json.dumps(self.manifest).encode())

    def flip(self, digest) -> str:
        """Change one bit in the middle of a blob; its digest."""
        data = bytearray(self.path(digest).read_bytes())
        data[len(data) // 2] ^= 1
        self.path(digest).write_bytes(data)
        return digest


def sound(made, lab):
    return []


def layer_bit(made, lab):
    return [made.flip(made.layers[made.which]["digest"])]


def manifest_bit(made, lab):
    """The bytes stay JSON: a space more at the end is another document."""
    path = made.path(made.digest)
    path.write_bytes(path.read_bytes() + b" ")
    return [made.digest]


def config_bit(made, lab):
    digest = made.manifest["config"]["digest"]
    path = made.path(digest)
    path.write_bytes(path.read_bytes().replace(b'"linux"', b'"minix"'))
    return [digest]


def missing(made, lab):
    digest = made.layers[-1]["digest"]
    made.path(digest).unlink()
    return [digest]


def other_layer(made, lab):
    """The blob of a layer is another layer's: a good archive, only not this one."""
    first, second = made.layers[made.which]["digest"], made.layers[made.which + 1]["digest"]
    made.path(first).write_bytes(made.path(second).read_bytes())
    return [first]


def other_diff_id(made, lab):
    """Every blob is what its name says, but a diff_id is not that of the layer."""
    other = "sha256:" + hashlib.sha256(lab.token().encode()).hexdigest()
    made.config["rootfs"]["diff_ids"][made.which] = other
    made.again()
    return [other]


def swapped(made, lab):
    ids = made.config["rootfs"]["diff_ids"]
    ids[made.which], ids[made.which + 1] = ids[made.which + 1], ids[made.which]
    made.again()
    return [ids[made.which], ids[made.which + 1]]


def packed_anew(made, lab):
    """Another compression of the same plain bytes, told truly: nothing is broken."""
    layer = made.layers[made.which]
    data = gzip.compress(gzip.decompress(made.path(layer["digest"]).read_bytes()), compresslevel=1, mtime=1)
    layer.update(digest=made.put(data), size=len(data))
    made.again()
    return []


def size(made, lab):
    layer = made.layers[made.which]
    layer["size"] += lab.number(1, 9)
    made.again()
    return [layer["digest"]]


# what was done to the image: how
CASES = {
    "nothing": sound,
    "one bit of a layer was flipped": layer_bit,
    "a space was added to the manifest": manifest_bit,
    "a word of the configuration was changed": config_bit,
    "a layer was removed": missing,
    "a layer's file was replaced by another layer's": other_layer,
    "a diff_id was replaced, and all digests made to fit": other_diff_id,
    "two diff_ids were swapped, and all digests made to fit": swapped,
    "a layer was compressed anew, and all digests made to fit": packed_anew,
    "a layer's size was raised in the manifest": size,
}


def check(broken, lab):
    """One image for each case; the function runs in a child."""
    child = lab.child()
    for words, spoil in CASES.items():
        folder = lab.folder()
        made = Made(folder / "layout", lab)
        wanted = spoil(made, lab)
        found = child.do(broken, str(folder / "layout"), made.digest)
        if not isinstance(found, list | tuple | set):
            raise Wrong(f"a list of digests is wanted; {found!r:.60} came back")
        if wanted and not found:
            raise Wrong(f"{words}, and nothing was found")
        if not wanted and found:
            why = f"{words} was changed" if words == "nothing" else words
            raise Wrong(f"{why}: the image is sound, and yet {len(found)} broken promises were found")
        if sorted(found) != sorted(wanted):
            short = ", ".join(sorted(f"{one!r:.20}..." for one in found))
            raise Wrong(f"{words}: {sorted(wanted)[0][:19]}... is broken; {short} came back")
