"""Floor 2: what the store holds for whom, and what it holds for nobody.

Owns: counting who needs a blob or an unpacked layer, verifying the store, and removing what
no name needs.  While an image is pulled or unpacked nothing is removed: whoever does that
holds the store's lock, which the kernel takes away with the process.

Read: flock(2); the OCI image specification, image-layout.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from labkit.errors import InUse, LabError
from labkit.image import layers, model, reference
from labkit.image.build import cache as build_cache
from labkit.image.drafts import locked, sweep
from labkit.image.store import Store
from labkit.kernel.removal import remove

HASH = re.compile(r"[0-9a-f]{64}")


class Freed(NamedTuple):
    """One thing that went, or would go."""

    kind: str  # "blob", "layer" (an unpacked layer's folder), or "cache" (a note of the build cache)
    name: str  # its digest; of a layer, the chain ID; of a note, its place below $LABKIT_DATA/build
    size: int  # bytes on the disk


def needs(store: Store) -> dict[str, set[str]]:
    """{digest of a blob: the names of the images that need it}; len() of these is its reference count.

    Raises Mismatch, NotFound for a store that lacks a document: nothing may be removed by such a count.
    """
    found: dict[str, set[str]] = {}
    for name, digest in store.names().items():
        manifest = model.Manifest.read(store.document(digest))
        for each in (digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)):
            found.setdefault(each, set()).add(name)
    return found


def needed_layers(store: Store) -> dict[str, set[str]]:
    """{chain ID of an unpacked layer: the names of the images that have it}."""
    found: dict[str, set[str]] = {}
    for name in store.names():
        image = store.find(name)
        for chain in layers.chain_ids(image.config.diff_ids) if image else []:
            found.setdefault(chain, set()).add(name)
    return found


def unreadable(store: Store) -> dict[str, LabError]:
    """{name of an image whose documents are damaged: what is wrong}; what it needs is not known, and kept."""
    found = {}
    for name in store.names():
        try:
            store.find(name)
        except LabError as error:
            found[name] = error
    return found


def garbage(store: Store, *, cache: bool = True) -> list[Freed]:
    """What no name needs, and no mount of this machine stands on.

    A damaged manifest hides which blobs its image needs, a damaged configuration which unpacked layers: of
    that kind nothing is garbage then (see `unreadable`).
    cache -- what the build cache stands on is no garbage; else all of the cache is.
    """
    blobs, chains, mounted = _known(needs, store), _known(needed_layers, store), _mounted()
    kept_blobs, kept_chains = build_cache.held(store) if cache else (set[str](), set[str]())
    found = []
    if blobs is not None:
        kept = blobs | kept_blobs
        for path in sorted(store.blobs.glob("*")):
            if not path.name.startswith(".") and f"sha256:{path.name}" not in kept:
                found.append(Freed("blob", f"sha256:{path.name}", path.stat().st_size))
    if chains is not None:
        kept = chains | kept_chains | {f"sha256:{name}" for name in mounted}
        for path in sorted(layers.folder().glob("*")):
            if not path.name.startswith(".") and f"sha256:{path.name}" not in kept:
                found.append(Freed("layer", f"sha256:{path.name}", _size(path)))
    if not cache:
        for path in build_cache.records():
            found.append(Freed("cache", f"{path.parent.name}/{path.name}", path.stat().st_size))
    return found


def _known(count: Callable[[Store], dict[str, set[str]]], store: Store) -> set[str] | None:
    """What a count finds needed; None where a damaged document leaves it unknown."""
    try:
        return set(count(store))
    except LabError:
        return None


def _place(store: Store, each: Freed) -> Path:
    """Where it lies."""
    if each.kind == "cache":
        return build_cache.folder().parent / each.name
    return (store.blobs if each.kind == "blob" else layers.folder()) / each.name.removeprefix("sha256:")


def prune(store: Store, *, dry: bool = False) -> list[Freed]:
    """Remove the garbage, the build cache, and what killed pulls and builds left; what that was. `dry` only tells.

    Raises InUse while something is pulled, unpacked or built.
    """
    try:
        with locked(store.blobs.parent, wait=False):
            found = garbage(store, cache=False)
            if not dry:
                for each in found:
                    remove(_place(store, each))
                for folder in (store.blobs, layers.folder()):
                    if folder.is_dir():
                        with locked(folder):
                            sweep(folder)
            return found
    except BlockingIOError as error:
        raise InUse(
            "cannot clean the store", why="an image is being pulled, unpacked or built right now", next="wait for it"
        ) from error


def drop(store: Store, name: str) -> tuple[str, list[Freed]]:
    """Take a name away, and remove what only it needed; its digest and what went. Raises NotFound, InUse.

    What a damaged document hid until now is not known to be its own: labkit prune takes that.
    """
    full = str(reference.parse(name))
    before = {(each.kind, each.name) for each in garbage(store)}
    told = [kind for kind, count in (("blob", needs), ("layer", needed_layers)) if _known(count, store) is not None]
    digest = store.untag(full)
    try:
        with locked(store.blobs.parent, wait=False):
            found = [each for each in garbage(store) if (each.kind, each.name) not in before]
            mine = [each for each in found if each.kind in told]
            for each in mine:
                remove(_place(store, each))
    except BlockingIOError as error:
        raise InUse(
            f"{full} has lost its name, but its bytes are still here",
            why="an image is being pulled or unpacked right now",
            next="labkit prune, when that has ended",
        ) from error
    return digest, mine


def verify(store: Store) -> Iterator[str]:
    """What is wrong with the store, a line each; nothing when all blobs are true and no image lacks one."""
    for path in sorted(store.blobs.glob("*")):
        if path.name.startswith("."):
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                yield f"the bytes of blob sha256:{path.name} have changed"
    for name, digest in store.names().items():
        try:
            manifest = model.Manifest.read(store.document(digest))
            parts = (manifest.config, *manifest.layers)
        except LabError as error:
            yield f"{name}: {error.what}"
            continue
        for part in parts:
            if not store.path(part.digest).exists():
                yield f"{name} lacks {part.digest}"
            elif store.path(part.digest).stat().st_size != part.size:
                yield f"{name}: {part.digest} is not of the size that the manifest says"


def _mounted() -> set[str]:
    """Names of layers' folders on which an overlay stands, in whatever mount namespace."""
    found: set[str] = set()
    namespaces: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            namespace = os.readlink(process / "ns/mnt")
            if namespace in namespaces:
                continue
            text = (process / "mountinfo").read_text(errors="surrogateescape")
        except OSError:
            continue  # it ended meanwhile
        namespaces.add(namespace)
        for line in text.splitlines():
            if " - overlay " in line:  # however the kernel writes the options, and wherever the store lies now
                found.update(HASH.findall(line))
    return found


def _size(folder: Path) -> int:
    """Bytes that the files below take, as du(1) counts them; links to one file count once."""
    total, seen = 0, set[int]()
    for place, _, files in os.walk(folder):
        for file in files:
            looks = os.lstat(os.path.join(place, file))
            if looks.st_ino not in seen:
                seen.add(looks.st_ino)
                total += looks.st_blocks * 512
    return total
