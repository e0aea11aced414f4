"""Floor 2: the plain bytes of a compressed layer, hashed on their way.

Owns: decompression (gzip, zstd, none) in a thread of its own, which frees the
interpreter's lock while it works, so that extraction goes on beside it.  The compressed
bytes are hashed there too: one pass tells both digests.  What a small file swells to waits
in pieces of a megabyte, however large it is.

Read: RFC 1952 on gzip members; the image specification on diff_ids.
"""

from __future__ import annotations

import hashlib
import importlib
import queue
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from labkit.errors import LabError

CHUNK = 1 << 18  # bytes read at a time
LARGEST = 1 << 20  # bytes of plain text made at a time
AHEAD = 16  # pieces that may wait for the extractor


class PlainStream:
    """A file to read from; what was in it, packed and plain, is hashed as it passes."""

    def __init__(self, blob: Path, compression: str) -> None:
        self._chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
        self._rest = b""
        self._at = 0
        self._ended = False
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._abandoned = threading.Event()
        self._worker = threading.Thread(target=self._work, args=(blob, compression), name="decompress")
        self._worker.start()

    def _work(self, blob: Path, compression: str) -> None:
        try:
            with blob.open("rb", buffering=0) as file:

                def piece() -> bytes:
                    data = file.read(CHUNK)
                    self._packed.update(data)
                    return data

                for plain in DECOMPRESS[compression](piece):
                    self._plain.update(plain)
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
        end = self._at + count
        if end <= len(self._rest):  # nearly always
            part, self._at = self._rest[self._at : end], end
            return part
        parts = []
        while count > 0 and (part := self.take(count)):
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def take(self, most: int) -> bytes:
        """What is at hand, at most `most` bytes; nothing only at the end. Raises what decompression met."""
        while self._at == len(self._rest):
            if self._ended:
                return b""
            item = self._chunks.get()
            self._ended = not isinstance(item, bytes)
            if isinstance(item, BaseException):
                raise item
            self._rest, self._at = item or b"", 0
        part = self._rest[self._at : self._at + most]
        self._at += len(part)
        return part

    def drain(self) -> tuple[str, str]:
        """Read to the end; the digests of the plain (the diff_id) and of the compressed bytes."""
        while self.take(LARGEST):
            pass
        self._worker.join()
        return f"sha256:{self._plain.hexdigest()}", f"sha256:{self._packed.hexdigest()}"

    def close(self) -> None:
        """End the thread, whether or not all was read."""
        self._abandoned.set()
        self._worker.join()


Read = Callable[[], bytes]  # the next piece of the compressed bytes, nothing at the end


def _plain(read: Read) -> Iterator[bytes]:
    while data := read():
        yield data


def _gzip(read: Read) -> Iterator[bytes]:
    library = _library("isal.isal_zlib") or zlib  # Intel's takes half the time for programs and text
    member = library.decompressobj(wbits=31)  # 31: a gzip header, the largest window
    while data := read():
        full = False
        while data or full:
            if member.eof:  # another member follows: pigz and estargz write many
                member = library.decompressobj(wbits=31)
            try:
                plain = member.decompress(data, LARGEST)
            except (zlib.error, getattr(library, "error", zlib.error)) as error:
                raise LabError("a layer is damaged", why=f"gzip: {error}") from error
            yield plain
            data = member.unused_data if member.eof else member.unconsumed_tail
            full = len(plain) == LARGEST and not member.eof  # it may hold back more
    if not member.eof:
        raise LabError("a layer is damaged", why="gzip: it ends in the middle")


def _zstd(read: Read) -> Iterator[bytes]:
    library = _library("zstandard")
    if library is None:
        yield from _zstd_program(read)
        return
    # A stream cut short ends in silence here; the archive in it, or the digest, tells.
    stream = library.ZstdDecompressor().stream_reader(_Pieces(read), read_size=CHUNK, read_across_frames=True)
    while True:
        try:
            data = stream.read(LARGEST)
        except library.ZstdError as error:
            raise LabError("a layer is damaged", why=f"zstd: {error}") from error
        if not data:
            return
        yield data


class _Pieces:
    """A function as the file that zstandard reads from."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def read(self, _: int) -> bytes:
        """The next piece; its length is that of the function's."""
        return self._read()


def _zstd_program(read: Read) -> Iterator[bytes]:
    program = shutil.which("zstd")
    if program is None:
        raise LabError(
            "a layer is compressed with zstd, and this machine lacks zstd",
            why="neither the Python package zstandard nor the program is here",
            next="apt-get install zstd",
        )
    with subprocess.Popen([program, "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        feeder = threading.Thread(target=_feed, args=(read, child.stdin), name="zstd")
        feeder.start()
        try:
            while data := child.stdout.read(CHUNK):
                yield data
        finally:
            child.stdout.close()  # so that neither of them waits for the other when nobody reads on
            feeder.join()
    if child.returncode:
        raise LabError("a layer is damaged", why="zstd could not decompress it")


def _feed(read: Read, pipe: IO[bytes]) -> None:
    try:
        with pipe:
            while data := read():
                pipe.write(data)
    except BrokenPipeError:
        while read():  # the hash wants all of it
            pass


def _library(name: str) -> Any:
    """An optional library (the extra `fast`), or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


DECOMPRESS: dict[str, Callable[[Read], Iterator[bytes]]] = {"": _plain, "gzip": _gzip, "zstd": _zstd}
