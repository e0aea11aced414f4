"""Is the new image whole and true, is the old one as it was, and do its layers unpack to what they should?"""

import gzip
import hashlib
import json
import shutil
from pathlib import Path

from labkit.errors import LabError
from labkit.image import kit, tarball, unpack
from labkit.image.store import REF_NAME, Store
from labkit.lessons.outcome import Wrong

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def made(layout, lab):
    """A layout with one image of two or three layers; returns the image's name and its layers' files."""
    layers, files = [], {}
    for number in range(lab.number(2, 3)):
        entries = [tarball.file(f"{number}-{lab.token()}", lab.token()), tarball.file("same", lab.token())]
        layers.append((f"step {number}", entries))
        files.update({entry.header.name: entry.data for entry in entries})
    settings = {"Cmd": ["/bin/" + lab.token()], "Env": ["TOKEN=" + lab.token()]}
    kit.layout(layout, "1.0", layers, settings, 1_500_000_000)
    index = json.loads((layout / "index.json").read_text())
    base = f"localhost:5000/{lab.token()}:1.0"
    index["manifests"][0]["annotations"][REF_NAME] = base
    (layout / "index.json").write_text(json.dumps(index))
    return base, files


def check(function, lab):
    """The function runs in a child; what it wrote is read here."""
    here = Path(lab.folder())
    layout = here / "layout"
    base, files = made(layout, lab)
    name = f"localhost:5000/{lab.token()}:2.0"
    gone = min(files)
    changed = [
        tarball.file("same", lab.token()),
        tarball.file(lab.token(), lab.token()),
        tarball.file(f".wh.{gone}", ""),
    ]
    plain = gzip.decompress(tarball.layer(changed, 1_600_000_000).data)
    (here / "layer.tar").write_bytes(plain)
    store = Store(layout)
    old = store.find(base)
    shutil.copytree(layout, here / "before")
    lab.child().do(function, str(layout), base, str(here / "layer.tar"), name)
    blobs(store)
    try:
        names = store.names()
    except (ValueError, KeyError, TypeError) as error:
        raise Wrong(f"index.json can no longer be read: {error!r}") from error
    if names.get(base) != old.digest:
        what = "is no longer in index.json" if base not in names else "means another manifest now"
        raise Wrong(f"{base} {what}: a commit makes an image more and leaves its base alone")
    if name not in names:
        raise Wrong(f"index.json has no image called {name}; it has {', '.join(sorted(names))}")
    try:
        new = store.find(name)
    except LabError as error:
        raise Wrong(f"the new image cannot be read: {error}") from error
    judge(store, old, new, plain)
    files.pop(gone)
    files.update({entry.header.name: entry.data for entry in changed[:2]})
    unpacked(new, here / "root", files)
    before = {path.name for path in (here / "before" / "blobs" / "sha256").iterdir()}
    after = {path.name for path in store.blobs.iterdir()}
    if len(after - before) != 3 or before - after:
        raise Wrong(
            f"{len(after - before)} blobs are new and {len(before - after)} are gone; a commit needs "
            "three new ones, a layer, a configuration and a manifest, and takes none away"
        )


def blobs(store):
    """Every blob's bytes hash to its name."""
    for path in store.blobs.iterdir():
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != path.name:
            raise Wrong(
                f"the blob {path.name[:12]}... no longer hashes to its name, its bytes hash to {actual[:12]}...; "
                "what is stored under its hash can never change"
            )


def judge(store, old, new, plain):
    """The new manifest and configuration against the old ones and the layer's true sums."""
    layers, diff_ids = new.manifest.layers, new.config.diff_ids
    true = "sha256:" + hashlib.sha256(plain).hexdigest()
    if len(layers) != len(old.manifest.layers) + 1:
        raise Wrong(f"the new manifest has {len(layers)} layers; the base has {len(old.manifest.layers)}")
    if len(diff_ids) != len(layers):
        raise Wrong(f"a configuration has one diff_id for each layer: here {len(diff_ids)} for {len(layers)} layers")
    if layers[:-1] != old.manifest.layers or diff_ids[:-1] != old.config.diff_ids:
        raise Wrong(
            "the new layer is not the last of the lists: layers and diff_ids stand bottom first, it goes on top"
        )
    top = layers[-1]
    if top.media_type != LAYER:
        raise Wrong(f"the new layer has the media type {top.media_type}, not {LAYER}")
    packed = store.path(top.digest).read_bytes() if store.path(top.digest).exists() else None
    if packed is None:
        raise Wrong(f"the manifest names the layer {top.digest[:19]}..., and there is no such blob")
    if top.size != len(packed):
        raise Wrong(f"the size of the new layer is {top.size} in the manifest, and its blob has {len(packed)} bytes")
    try:
        inner = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        raise Wrong(f"the new layer's blob is not compressed with gzip: {error}") from error
    if inner != plain:
        raise Wrong("the new layer's blob, decompressed, is not the layer that was given")
    if diff_ids[-1] == top.digest:
        raise Wrong("the last diff_id is the hash of the compressed bytes; a diff_id is the hash of the plain tar")
    if diff_ids[-1] != true:
        raise Wrong(f"the last diff_id is {diff_ids[-1][:19]}..., and the plain tar hashes to {true[:19]}...")
    if new.manifest.config.size != store.path(new.manifest.config.digest).stat().st_size:
        raise Wrong(
            f"the manifest gives the new configuration {new.manifest.config.size} bytes, and its blob has others"
        )
    if dict(new.config.config) != dict(old.config.config) or new.config.architecture != old.config.architecture:
        then, now = json.dumps(dict(old.config.config)), json.dumps(dict(new.config.config))
        raise Wrong(f"the new configuration keeps all that the old one says, but its settings were {then}, now {now}")
    if len(new.config.history) != len(old.config.history) + 1:
        raise Wrong(
            f"the history has {len(new.config.history)} entries; it had {len(old.config.history)}, one more is due"
        )


def unpacked(image, root, files):
    """All layers on top of each other."""
    root.mkdir()
    try:
        unpack.flatten(image, root)
    except LabError as error:
        raise Wrong(f"the layers of the new image cannot be unpacked: {error}") from error
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    if found != files:
        odd = sorted(name for name in {*found, *files} if found.get(name) != files.get(name))
        raise Wrong(f"unpacked, the new image differs in {', '.join(odd)}")
