"""Floor 2: files into a layer: a tar archive whose bytes depend on the files alone.

Owns: sorting, owners and times, so that the same files make the same digest on every
machine and every day.

Read: the OCI image specification, layer; reproducible-builds.org on archives.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from typing import NamedTuple


class Entry(NamedTuple):
    """One file of a layer: its header and its bytes."""

    header: tarfile.TarInfo
    data: bytes = b""


class Layer(NamedTuple):
    """A layer as it travels: the compressed bytes and both of its hashes."""

    data: bytes
    digest: str
    diff_id: str


def folder(path: str, mode: int = 0o755) -> Entry:
    """A folder of root's."""
    header = tarfile.TarInfo(path)
    header.type, header.mode = tarfile.DIRTYPE, mode
    return Entry(header)


def file(path: str, text: str | bytes, mode: int = 0o644) -> Entry:
    """A file of root's."""
    data = text.encode() if isinstance(text, str) else text
    header = tarfile.TarInfo(path)
    header.size, header.mode = len(data), mode
    return Entry(header, data)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link."""
    header = tarfile.TarInfo(path)
    header.type, header.linkname, header.mode = tarfile.SYMTYPE, target, 0o777
    return Entry(header)


def layer(entries: list[Entry], when: int) -> Layer:
    """The layer of these entries; what has no time of its own gets `when` (seconds since 1970).

    A folder stands before what is in it, because / sorts before every name.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in sorted(entries, key=lambda entry: entry.header.name):
            header = entry.header
            header.mtime = int(header.mtime) or when
            header.uname = header.gname = ""
            archive.addfile(header, io.BytesIO(entry.data) if entry.data else None)
    packed = gzip.compress(plain.getvalue(), compresslevel=6, mtime=0)
    return Layer(packed, sha256(packed), sha256(plain.getvalue()))


def sha256(data: bytes) -> str:
    """The digest of bytes, as registries write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
