"""Floor 2: ADD of an archive: its content, not the file.

Owns: telling an archive by its bytes (tar, plain or packed with gzip, bzip2, xz or zstd), as Docker does,
and unpacking it into a folder of the image, which nothing in it leaves.

Read: Docker's "Dockerfile reference", ADD; tar(5).
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from labkit.errors import LabError
from labkit.image.build.context import Found, Tree
from labkit.image.build.copying import Target
from labkit.image.extract import Extractor
from labkit.image.stream import CHUNK, PlainStream
from labkit.image.tar import Reader

# The first bytes of a packed file: how labkit.image.stream calls it, or the module that unpacks it.
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}


def unpack(target: Target, tree: Tree, each: Found, destination: str) -> bool:
    """Unpack the archive `each` into the folder `destination`; False when it is none. Raises LabError."""
    if not stat.S_ISREG(each.looks.st_mode):
        return False
    blob = Path(tree.root, each.path)
    with blob.open("rb") as file:
        start = file.read(8)
    packed = next((how for magic, how in MAGIC.items() if start.startswith(magic)), "")
    if packed in ("bz2", "lzma"):
        with tempfile.NamedTemporaryFile() as plain:
            if not _decompressed(blob, packed, plain.write):
                return False
            plain.flush()
            return _extract(target, Path(plain.name), "", destination)
    return _extract(target, blob, packed, destination)


def _decompressed(blob: Path, module: str, write: Callable[[bytes], object]) -> bool:
    import importlib

    library = importlib.import_module(module)
    try:
        with library.open(blob) as file:
            while data := file.read(CHUNK):
                write(data)
    except (OSError, EOFError):
        return False
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # it has no other base
            raise
        return False
    return True


def _extract(target: Target, blob: Path, how: str, destination: str) -> bool:
    stream = PlainStream(blob, how)
    try:
        reader = Reader(stream)
        entries = iter(reader)
        try:
            entry = next(entries, None)
        except LabError:
            return False  # no archive: a file like any other
        if entry is None:
            return False
        folder = target.folder(destination)
        extractor = Extractor(Path(f"/proc/self/fd/{folder}"), overlay=False, layer=False)
        try:
            while entry is not None:
                if target.owner is not None:
                    entry.uid, entry.gid = target.owner
                extractor.add(reader, entry)
                entry = next(entries, None)
            extractor.finish()
        except OSError as error:
            raise LabError(f"cannot unpack {entry.name if entry else blob.name!r}", why=str(error)) from error
        finally:
            extractor.close()
            os.close(folder)
    finally:
        stream.close()
    return True
