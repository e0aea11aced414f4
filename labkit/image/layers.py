"""Floor 2: the unpacked layers, each in a folder of its own that overlayfs can stack.

Owns: $LABKIT_DATA/layers, one folder a stack of layers, made once and never written again.

Read: the OCI image specification, config ("Layer ChainID").
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from labkit import paths
from labkit.errors import BadInput
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
    import shutil

    from labkit.image.unpack import apply

    draft = folder.with_name(f".{folder.name[:16]}.{os.getpid()}")
    draft.mkdir(parents=True)
    draft.chmod(0o755)
    try:
        apply(store.path(layer.digest), model.LAYERS[layer.media_type], diff_id, draft, overlay=True, below=below)
        try:
            draft.rename(folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else: another run was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
