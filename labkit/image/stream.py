"""Floor 2: the plain bytes of a compressed layer, hashed on their way.

Owns: decompression (gzip, zstd, none) in a thread of its own, which frees the
interpreter's lock while it works, so that extraction goes on beside it.

Read: RFC 1952 on gzip members; the image specification on diff_ids.
"""

from __future__ import annotations

import hashlib
import queue
import shutil
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from labkit.errors import LabError

CHUNK = 1 << 18  # bytes read at a time; the plain text of it is a few times as long
AHEAD = 16  # chunks that may wait for the extractor


class PlainStream:
    """A file to read from; `diff_id` after the end is the hash of all that was in it."""

    def __init__(self, blob: Path, compression: str) -> None:
        self._chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
        self._rest = b""
        self._at = 0
        self._ended = False
        self._hasher = hashlib.sha256()
        self._abandoned = threading.Event()
        self._worker = threading.Thread(target=self._work, args=(blob, compression), name="decompress")
        self._worker.start()

    def _work(self, blob: Path, compression: str) -> None:
        try:
            with blob.open("rb", buffering=0) as file:
                for plain in DECOMPRESS[compression](file):
                    self._hasher.update(plain)
                    if not self._put(plain):
                        return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: bytes | BaseException | None) -> bool:
        while not self._abandoned.is_set():
            try:
                self._chunks.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end. Raises what decompression met."""
        parts = []
        while count > 0:
            if self._at == len(self._rest):
                if self._ended:
                    break
                item = self._chunks.get()
                if isinstance(item, BaseException):
                    self._ended = True
                    raise item
                self._rest, self._at, self._ended = item or b"", 0, item is None
                continue
            part = self._rest[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drain(self) -> str:
        """Read to the end; return the diff_id."""
        while self.read(1 << 20):
            pass
        self._worker.join()
        return "sha256:" + self._hasher.hexdigest()

    def close(self) -> None:
        """End the thread, whether or not all was read."""
        self._abandoned.set()
        self._worker.join()


def _plain(file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(CHUNK):
        yield data


def _gzip(file: IO[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)  # 31: a gzip header, the largest window
    while data := file.read(CHUNK):
        while data:
            try:
                yield member.decompress(data)
            except zlib.error as error:
                raise LabError("a layer is damaged", why=f"gzip: {error}") from error
            data = member.unused_data
            if data:  # another member follows: pigz and estargz write many
                member = zlib.decompressobj(wbits=31)
    if not member.eof:
        raise LabError("a layer is damaged", why="gzip: it ends in the middle")


def _zstd(file: IO[bytes]) -> Iterator[bytes]:
    program = shutil.which("zstd")
    if program is None:
        raise LabError("a layer is compressed with zstd, and this machine lacks zstd", next="apt-get install zstd")
    with subprocess.Popen([program, "-dcq"], stdin=file, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while data := child.stdout.read(CHUNK):
            yield data
    if child.returncode:
        raise LabError("a layer is damaged", why="zstd could not decompress it")


DECOMPRESS = {"": _plain, "gzip": _gzip, "zstd": _zstd}
