"""Floor 2: the unpacked layers, each in a folder of its own that overlayfs can stack.

Owns: $LABKIT_DATA/layers, one folder a stack of layers, made once and never written again.

Read: the OCI image specification, config ("Layer ChainID").
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

from labkit import paths
from labkit.errors import BadInput, LabError, Mismatch, NotFound
from labkit.image import model
from labkit.image.store import Image, Store


def layer_folders(image: Image) -> list[Path]:
    """The unpacked layers, bottom first; those not unpacked yet are unpacked now.

    A folder's name is its chain ID, the hash of its whole stack of diff_ids (image
    specification, config), so that equal stacks share folders.  Raises LabError.
    """
    folders: list[Path] = []
    chain = ""
    if len(image.config.diff_ids) != len(image.manifest.layers):
        raise BadInput(f"{image.name} contradicts itself", why="as many diff_ids as layers are needed")
    for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest() if chain else diff_id
        folder = paths.data() / "layers" / chain.removeprefix("sha256:")
        if not folder.is_dir():
            _unpack_new(image.store, layer, diff_id, folder, folders)
        folders.append(folder)
    return folders


def _unpack_new(store: Store, layer: model.Descriptor, diff_id: str, folder: Path, below: list[Path]) -> None:
    # Only here, since a container usually starts from layers that are unpacked already.
    from labkit.image.drafts import draft
    from labkit.image.unpack import apply

    blob = store.path(layer.digest)
    if not blob.exists():
        raise NotFound(f"the store lacks the layer {layer.digest}", next="labkit pull the image again")
    with draft(folder.parent, directory=True) as unfinished:
        unfinished.chmod(0o755)
        try:
            apply(blob, model.LAYERS[layer.media_type], diff_id, unfinished, overlay=True, below=below)
        except LabError as error:
            _blame(blob, layer.digest, error)
            raise
        try:
            unfinished.rename(folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else: another run was faster
                raise


def _blame(blob: Path, digest: str, error: LabError) -> None:
    """A layer that fails because the disk has changed its bytes is removed, so that a pull heals it."""
    with blob.open("rb") as file:
        actual = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if actual != digest:
        blob.unlink()
        raise Mismatch(
            "a layer in the store was damaged",
            why=f"{digest} by name, {actual} by its bytes",
            next="it is removed; labkit pull the image again",
        ) from error
