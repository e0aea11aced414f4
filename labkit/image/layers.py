"""Floor 2: the unpacked layers, each in a folder of its own that overlayfs can stack.

Owns: $LABKIT_DATA/layers, one folder a stack of layers, made once and never written again.
Layers are unpacked side by side, since each is a folder of its own; a deletion in one is a
mark, and what it hides is left to overlayfs.

Read: the OCI image specification, config ("Layer ChainID").
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from labkit import paths
from labkit.errors import LabError, Mismatch, NotFound
from labkit.image import model
from labkit.image.store import Image, Store


class _Missing(NamedTuple):
    """A layer that is not unpacked yet."""

    store: Store
    blob: Path
    layer: model.Descriptor
    diff_id: str
    place: int  # in the stack, 0 at the bottom


def folder() -> Path:
    """Where all unpacked layers lie."""
    return paths.data() / "layers"


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The name of each stack that ends with one of these layers: the hash of its whole history.

    Equal stacks share their name (image specification, config, "Layer ChainID").
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append("sha256:" + hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest() if chain else diff_id)
    return chain


def layer_folders(image: Image) -> list[Path]:
    """The unpacked layers, bottom first; those not unpacked yet are unpacked now, side by side.

    Raises BadInput, Mismatch, NotFound, LabError; a layer that fails leaves no folder.
    """
    stack = image.stack
    folders = [folder() / chain.removeprefix("sha256:") for chain in chain_ids(image.config.diff_ids)]
    missing = [
        _Missing(image.store, image.store.path(layer.digest), layer, diff_id, place)
        for place, (layer, diff_id) in enumerate(stack)
        if not folders[place].is_dir()
    ]
    for each in missing:
        if not each.blob.exists():
            raise NotFound(f"the store lacks the layer {each.layer.digest}", next="labkit pull the image again")
    if missing:
        _unpack(missing, folders)
    return folders


def _unpack(missing: list[_Missing], folders: list[Path]) -> None:
    """Each into a draft of its own; only when all are whole, and from the bottom up, they get their names."""
    # Only here, since a container usually starts from layers that are unpacked already.
    from labkit.image.beneath import dress_as_below
    from labkit.image.drafts import draft

    with ExitStack() as stack:
        stack.enter_context(missing[0].store.in_use())
        drafts = [stack.enter_context(draft(folder(), directory=True)) for _ in missing]
        implied = _side_by_side(missing, drafts)
        for each, unfinished, paths_implied in zip(missing, drafts, implied, strict=True):
            # What an archive only implies looks as it does below, and that is known only now.
            dress_as_below(unfinished, paths_implied, folders[: each.place])
            try:
                unfinished.rename(folders[each.place])
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else: another run was faster
                    raise


def _side_by_side(missing: list[_Missing], drafts: list[Path]) -> list[list[str]]:
    if len(missing) == 1:
        return [_unpack_one(missing[0], drafts[0])]
    from concurrent.futures import ThreadPoolExecutor  # costs 5 ms

    with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool:
        return list(pool.map(_unpack_one, missing, drafts))


def _unpack_one(each: _Missing, unfinished: Path) -> list[str]:
    from labkit.image.unpack import apply

    unfinished.chmod(0o755)
    how = model.LAYERS[each.layer.media_type]
    try:
        return apply(each.blob, how, each.diff_id, unfinished, overlay=True, digest=each.layer.digest)
    except LabError as error:
        _blame(each.blob, each.layer.digest, error)
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
