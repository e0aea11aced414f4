"""Floor 2: a tar archive as a stream of entries, read as the strict readers read it.

Owns: headers: ustar, GNU's long names and sparse files, pax's records.  What is damaged is
an error that says where, never a silent end; nothing that an archive says makes it take more
than LONGEST bytes of memory.  Names are text with surrogates for bytes that are no UTF-8.

Read: pax(1) and "ustar Interchange Format" in POSIX; GNU tar's manual on sparse formats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from labkit.errors import BadInput
from labkit.image.tarfields import check_sum, damaged, decimal, nanoseconds, number, records_of, text_of

BLOCK = 512  # bytes: everything in an archive is padded to it
LONGEST = 1 << 20  # bytes of a pax header, a long name or a sparse map; Go's reader stops there too
HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
ZEROS = bytes(BLOCK)
XATTR = "SCHILY.xattr."  # the pax records in which tar carries extended attributes
SPARSE_ENDS = struct.Struct("12s12s")

KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",  # "contiguous", which no file system cares for
    b"S": "file",  # GNU's sparse file
    b"1": "hard link",
    b"2": "symlink",
    b"3": "character device",
    b"4": "block device",
    b"5": "folder",
    b"6": "fifo",
}
PAX, PAX_ALL, LONG_NAME, LONG_LINK, SPARSE = b"x", b"g", b"L", b"K", b"S"


class Source(Protocol):
    """Where the plain bytes come from."""

    def read(self, count: int, /) -> bytes:
        """`count` bytes; fewer only at the end."""

    def take(self, most: int, /) -> bytes:
        """What is at hand, `most` bytes of it at most; nothing only at the end."""


class Entry:
    """One entry; its bytes are read with Reader.data().  (No dataclass: that import costs each start 8 ms.)

    kind is one of KINDS, for others the raw letter, as in "type 'V'"; size is in bytes of the archive,
    length in bytes of the file, which is more when it has holes; mtime in nanoseconds since 1970; extents
    are (offset, bytes) of what is no hole, None for a file that is written through.
    """

    __slots__ = ("extents", "gid", "kind", "length", "link", "major", "minor", "mode", "mtime", "name", "size",
                 "uid", "xattrs")  # fmt: skip

    def __init__(self, name: str, kind: str, mode: int, uid: int, gid: int, size: int, mtime: int, link: str) -> None:
        self.name, self.kind, self.mode = name, kind, mode
        self.uid, self.gid = uid, gid
        self.size = self.length = size
        self.mtime = mtime
        self.link = link
        self.major = self.minor = 0
        self.xattrs: dict[str, bytes] = {}
        self.extents: list[tuple[int, int]] | None = None


class Reader:
    """The entries of an archive, in order, once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0  # bytes of the entry's data not read yet
        self._padding = 0  # bytes behind them

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def data(self) -> Iterator[bytes]:
        """The bytes of the current entry, in pieces. Raises BadInput where the archive ends before them."""
        while self._left:
            piece = self._source.take(self._left)
            if not piece:
                raise damaged("it ends in the middle of a file")
            self._left -= len(piece)
            yield piece

    # --- headers -------------------------------------------------------------------------

    def _next(self) -> Entry | None:
        for _ in self.data():
            pass  # what nobody wanted to read
        records: dict[str, bytes] = {}
        names: dict[str, bytes] = {}  # GNU's, which go before pax's
        while True:
            # One read for the padding and what follows it: this runs for every file.
            skipped, self._padding = self._padding, 0
            block = self._source.read(skipped + BLOCK)[skipped:]
            if len(block) < BLOCK:
                if not block and not records and not names:
                    return None  # without the two empty blocks: strict readers let this pass
                raise damaged("it ends in the middle of a header")
            if block == ZEROS:
                if self._source.read(BLOCK) not in (ZEROS, b""):
                    raise damaged("an empty block stands between its headers")
                return None
            fields = HEADER.unpack(block)
            check_sum(block, fields[6])
            kind, size = fields[7], number(fields[4], "size")
            if kind in (PAX, PAX_ALL, LONG_NAME, LONG_LINK):
                text = self._special(size)
                if kind == PAX:
                    records = dict(records_of(text))
                elif kind == PAX_ALL:
                    dict(records_of(text))  # read, for its errors; as containerd does, not applied
                else:
                    names["path" if kind == LONG_NAME else "linkpath"] = text.partition(b"\0")[0]
                continue
            return self._entry(block, fields, size, {**records, **names} if names else records)

    def _special(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST:
            raise BadInput(
                "a layer's archive is refused", why=f"a pax header or a long name of {size} bytes; no name needs that"
            )
        whole = -(-size // BLOCK) * BLOCK
        text = self._source.read(whole)
        if len(text) < whole:
            raise damaged("it ends in the middle of a header")
        return text[:size]

    def _entry(self, block: bytes, fields: tuple[bytes, ...], size: int, records: dict[str, bytes]) -> Entry:
        raw, mode, uid, gid, _, mtime, _, letter, link, magic, _, _, major, minor, prefix = fields
        name = raw.partition(b"\0")[0]
        if magic[:6] == b"ustar\0" and prefix[0]:
            name = prefix.partition(b"\0")[0] + b"/" + name
        kind = KINDS.get(letter) or f"type {letter.decode('latin-1')!r}"
        if letter == b"\0" and name.endswith(b"/"):
            kind = "folder"  # the oldest archives have no letter for it
        entry = Entry(
            text_of(name),
            kind,
            number(mode, "mode") & 0o7777,
            number(uid, "owner"),
            number(gid, "group"),
            size,
            number(mtime, "time") * 1_000_000_000,
            text_of(link.partition(b"\0")[0]),
        )
        if letter in b"34":
            entry.major, entry.minor = number(major, "device"), number(minor, "device")
        if records:
            _apply(entry, records)
        if kind != "file" and kind in KINDS.values():
            entry.size = 0  # links, folders and devices have no data, whatever they say
        elif entry.size < 0:
            raise damaged(f"{entry.name!r} has a negative size")
        entry.length, self._left, self._padding = entry.size, entry.size, -entry.size % BLOCK
        if kind == "file" and (letter == SPARSE or "GNU.sparse.major" in records or "GNU.sparse.map" in records
                               or "GNU.sparse.numblocks" in records):  # fmt: skip
            self._sparse(entry, block, letter, records)
        return entry

    # --- sparse files --------------------------------------------------------------------

    def _sparse(self, entry: Entry, block: bytes, letter: bytes, records: dict[str, bytes]) -> None:
        """Find the extents, by whichever of GNU tar's four ways of writing them."""
        if letter == SPARSE:
            numbers, entry.length = self._sparse_old(block), number(block[483:495], "sparse size")
        else:
            entry.length = decimal(records.get("GNU.sparse.realsize", records.get("GNU.sparse.size", b"")), "size")
            if "GNU.sparse.name" in records:
                entry.name = text_of(records["GNU.sparse.name"])
            if records.get("GNU.sparse.major") == b"1":
                numbers = self._sparse_new(entry)
            else:
                numbers = [decimal(word, "sparse map") for word in records.get("GNU.sparse.map", b"").split(b",")]
        extents = list(zip(numbers[::2], numbers[1::2], strict=len(numbers) % 2 == 0))
        end = total = 0
        for offset, length in extents:
            if offset < end or length < 0:
                raise damaged(f"the map of the sparse file {entry.name!r} goes backwards")
            end, total = offset + length, total + length
        if len(numbers) % 2 or end > entry.length or total != self._left:
            raise damaged(f"the map of the sparse file {entry.name!r} does not fit it")
        entry.extents = extents

    def _sparse_old(self, block: bytes) -> list[int]:
        numbers: list[int] = []
        fields, more = block[386:482], block[482]
        while True:
            for pair in SPARSE_ENDS.iter_unpack(fields[: len(fields) // 24 * 24]):
                if pair[0][0] == 0:
                    break
                numbers += [number(part, "sparse map") for part in pair]
            if not more:
                return numbers
            fields = self._source.read(BLOCK)
            if len(fields) < BLOCK or len(numbers) * 12 > LONGEST:
                raise damaged("the map of a sparse file has no end")
            more = fields[504]

    def _sparse_new(self, entry: Entry) -> list[int]:
        """Version 1.0: decimal lines in front of the data, padded."""
        text, lines = b"", 1
        while text.count(b"\n") < lines:
            if self._left < BLOCK or len(text) > LONGEST:
                raise damaged(f"the map of the sparse file {entry.name!r} has no end")
            text += self._source.read(BLOCK)
            self._left -= BLOCK
            if lines == 1 and b"\n" in text:
                lines += 2 * decimal(text.partition(b"\n")[0], "sparse map")
                if lines > LONGEST:
                    raise damaged(f"the map of the sparse file {entry.name!r} is too long")
        entry.size = self._left
        return [decimal(line, "sparse map") for line in text.split(b"\n")[1:lines]]


def _apply(entry: Entry, records: dict[str, bytes]) -> None:
    """Records take the place of the header's fields; an empty one gives the field back (POSIX)."""
    for key, value in records.items():
        if key == "path" and value:
            entry.name = text_of(value)
        elif key == "linkpath" and value:
            entry.link = text_of(value)
        elif key == "mtime" and value:
            entry.mtime = nanoseconds(value)
        elif key in ("uid", "gid", "size") and value:
            setattr(entry, key, decimal(value, key))
        elif key.startswith(XATTR):
            entry.xattrs[key.removeprefix(XATTR)] = value
