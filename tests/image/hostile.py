"""Layers that mean harm, one a row: what is in it, and what labkit and umoci each make of it.

A row's `verdict` is what labkit does: APPLIED, or a piece of the words that refuse it.  Its `umoci`
is SAME (it applies the layer, and to the same tree), REFUSES, or in words what it makes instead; where
a row says nothing of it, umoci does what labkit does.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from typing import NamedTuple

from image.making import archive, entry, folder, hardlink, symlink

APPLIED, SAME, REFUSES, NOT_ASKED = "applied", "same", "refuses", "not asked"
OUTSIDE = "@OUTSIDE@"  # the path of the folder beside the root, as long as it is there
END = bytes(1024)
INSTEAD = "makes what the link says beneath its root, and writes there"


class Row(NamedTuple):
    """One hostile layer."""

    name: str
    layer: Callable[[str], bytes]  # from the path outside to the plain archive
    verdict: str
    umoci: str = ""
    packed: Callable[[bytes], bytes] = gzip.compress


def raw(name: bytes, kind: bytes = b"0", data: bytes = b"", *, size: bytes | None = None, **fields: bytes) -> bytes:
    """An entry made by hand, for what tarfile would not write; its checksum is right."""
    header = bytearray(512)
    places = {"mode": (100, b"0000644\0"), "uid": (108, b"0000000\0"), "gid": (116, b"0000000\0"),
              "mtime": (136, b"14524460400\0"), "link": (157, b""), "magic": (257, b"ustar\x0000"),
              "devmajor": (329, b""), "devminor": (337, b""), "prefix": (345, b""), "tail": (386, b"")}  # fmt: skip
    header[: len(name)] = name
    header[156:157] = kind
    written = b"%011o\0" % len(data) if size is None else size
    header[124 : 124 + len(written)] = written
    for field, (place, usual) in places.items():
        value = fields.get(field, usual)
        header[place : place + len(value)] = value
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """A pax header of these KEY=VALUE records."""
    text = b""
    for record in records:
        length = len(record) + 3
        while len(b"%d %s\n" % (length, record)) != length:
            length += 1
        text += b"%d %s\n" % (length, record)
    return raw(b"pax", kind, text)


def rows(*entries: tuple[tarfile.TarInfo, bytes]) -> Callable[[str], bytes]:
    """The archive of these entries, OUTSIDE put in."""

    def make(outside: str) -> bytes:
        for header, _ in entries:
            header.name, header.linkname = (text.replace(OUTSIDE, outside) for text in (header.name, header.linkname))
        return archive(*entries)

    return make


def plain(data: bytes) -> Callable[[str], bytes]:
    return lambda outside: data


FILE = entry("file", data=b"x")
D = folder("d")
HERE = raw(b"here", data=b"x")
CAP = bytes.fromhex("0100000200040000000000000000000000000000")
TABLE = [
    # --- names
    Row("a name that climbs", rows(entry("../outside/new", data=b"x"), entry("../secret", data=b"y")), APPLIED),
    Row("a name that climbs in the middle", rows(D, entry("d/../../outside/x", data=b"x")), APPLIED),
    Row("a name that climbs out of a missing folder", rows(entry("no/../../outside/x", data=b"x")), APPLIED,
        "shortens the text, and makes no folder called no"),
    Row("an absolute name", rows(entry(OUTSIDE + "/new", data=b"x")), APPLIED),
    Row("a name that ends with ..", rows(D, entry("d/..", data=b"x")), "names no file"),
    Row("the name ..", rows(entry("..", data=b"x")), "names no file"),
    Row("a file called .", rows(entry(".", data=b"x")), "the root"),
    Row("a symlink called /", rows(symlink("/", OUTSIDE)), "the root"),
    Row("no name", plain(raw(b"", data=b"x") + END), "the root"),
    Row("a name with a line end", rows(entry("a\nb", data=b"x")), APPLIED),
    Row("a name that is no UTF-8", plain(raw(b"\xff\xfe", data=b"x") + END), APPLIED),
    Row("a name of escape sequences", rows(entry("\x1b[2J\x07", data=b"x")), APPLIED),
    Row("a name of 255 bytes", rows(entry("n" * 255, data=b"x")), APPLIED),
    Row("a name of 256 bytes", rows(entry("n" * 256, data=b"x")), "too long"),
    Row("a path of 5000 bytes", rows(entry("d/" * 2500 + "f", data=b"x")), "too long"),
    Row("folders 1100 deep", rows(entry("d/" * 1100 + "f", data=b"x")), APPLIED, NOT_ASKED),
    Row("a NUL in a name", plain(pax(b"path=a\0b") + HERE + END), "null byte"),
    # --- symlinks
    Row("through an absolute link", rows(symlink("door", OUTSIDE), entry("door/x", data=b"x")), "no folder", INSTEAD),
    Row("through a climbing link",
        rows(symlink("door", "../outside"), entry("door/x", data=b"x")), "no folder", INSTEAD),
    Row("through a chain of links",
        rows(symlink("a", "b"), symlink("b", OUTSIDE), entry("a/secret", data=b"x")), "no folder", INSTEAD),
    Row("through a link to /", rows(symlink("door", "/"), D, entry("door/d/x", data=b"x")), APPLIED),
    Row("through a link that climbs back in",
        rows(D, symlink("door", "../../../../d"), entry("door/x", data=b"x")), APPLIED),
    Row("through a loop of links",
        rows(symlink("a", "b"), symlink("b", "a"), entry("a/x", data=b"x")), "symbolic links"),
    Row("a folder swapped for a link",
        rows(D, entry("d/x", data=b"x"), symlink("d", OUTSIDE), entry("d/secret", data=b"x")), "no folder", INSTEAD),
    Row("a link swapped for a folder", rows(symlink("d", OUTSIDE), D, entry("d/secret", data=b"x")), APPLIED),
    Row("a file in a link's place", rows(symlink("a", OUTSIDE + "/secret"), entry("a", data=b"x")), APPLIED),
    Row("a link to a link's place", rows(symlink("a", OUTSIDE), symlink("a", "b")), APPLIED),
    Row("below a file", rows(FILE, entry("file/x", data=b"x")), "no folder"),
    # --- hard links
    Row("a hard link outside", rows(hardlink("stolen", OUTSIDE + "/secret")), "leads nowhere"),
    Row("a hard link that climbs", rows(hardlink("stolen", "../outside/secret")), "leads nowhere"),
    Row("a hard link through a link", rows(symlink("door", OUTSIDE), hardlink("stolen", "door/secret")),
        "leads nowhere"),
    Row("a hard link to a link", rows(symlink("door", OUTSIDE + "/secret"), hardlink("twin", "door")), APPLIED),
    Row("a hard link to a folder", rows(D, hardlink("twin", "d")), "leads to a folder"),
    Row("a hard link to ..", rows(hardlink("twin", "..")), "leads to no file"),
    Row("a hard link to what comes later", rows(hardlink("twin", "file"), FILE), "leads nowhere"),
    Row("a hard link to itself", rows(FILE, hardlink("file", "file")), APPLIED, REFUSES),
    # --- kinds
    Row("the memory as a device", rows(entry("mem", tarfile.CHRTYPE, devmajor=1, devminor=1)), APPLIED),
    Row("a disk as a device", rows(entry("sda", tarfile.BLKTYPE, devmajor=8, devminor=0)), APPLIED),
    Row("a pipe", rows(entry("pipe", tarfile.FIFOTYPE)), APPLIED),
    Row("set-user-ID of root", rows(entry("su", data=b"x", mode=0o6755)), APPLIED),
    Row("capabilities", plain(pax(b"SCHILY.xattr.security.capability=" + CAP) + HERE + END), APPLIED),
    Row("a forged mark of overlayfs", plain(pax(b"SCHILY.xattr.trusted.overlay.redirect=/etc") + HERE + END), APPLIED),
    Row("an unknown kind", plain(raw(b"what", b"Z") + HERE + END), "unknown kind"),
    Row("a volume's label", plain(raw(b"label", b"V") + HERE + END), "unknown kind"),
    Row("a folder with a size", plain(raw(b"d/", b"5", size=b"00000001000\0") + HERE + END), APPLIED),
    Row("a link with a size", plain(raw(b"l", b"2", link=b"here", size=b"00000001000\0") + HERE + END), APPLIED),
    # --- twice
    Row("a file twice", rows(FILE, entry("file", data=b"second")), APPLIED),
    Row("a file for a full folder", rows(D, entry("d/x", data=b"x"), entry("d", data=b"y")), APPLIED),
    Row("a folder for a file", rows(entry("d", data=b"y"), D, entry("d/x", data=b"x")), APPLIED),
    Row("a link for a full folder", rows(D, entry("d/x", data=b"x"), symlink("d", "file"), FILE), APPLIED),
    # --- deletions
    Row("the deletion of nothing", rows(entry(".wh.")), "no name"),
    Row("the deletion of .", rows(entry(".wh..")), "no name"),
    Row("the deletion of ..", rows(D, entry("d/.wh...")), "no name"),
    Row("the deletion of the outside", rows(entry("../.wh.outside")), APPLIED),
    Row("a deletion through a link",
        rows(symlink("door", OUTSIDE), entry("door/.wh.secret")), APPLIED),
    Row("an opaque mark through a link",
        rows(symlink("door", OUTSIDE), entry("door/.wh..wh..opq")), APPLIED),
    Row("a deletion below a file", rows(FILE, entry("file/.wh.x")), APPLIED),
    Row("an opaque root", rows(FILE, entry(".wh..wh..opq")), APPLIED),
    Row("the deletion of what the layer brings", rows(FILE, entry(".wh.file")), APPLIED),
    # --- bytes
    Row("a bomb", rows(entry("zeros", data=bytes(32 << 20))), APPLIED),
    Row("a hole of 64 MiB", plain(raw(b"hole", b"S", b"x" * 512, magic=b"ustar  \0",
        tail=b"00400000000\0" + b"00000001000\0" + bytes(73) + b"00400001000\0") + END), APPLIED, REFUSES),
    Row("a sparse map that overlaps", plain(raw(b"hole", b"S", b"x" * 1024, magic=b"ustar  \0",
        tail=b"00000000000\0" + b"00000001000\0" + b"00000000000\0" + b"00000001000\0" + bytes(49) + b"00000002000\0")
        + END), "goes backwards"),
    Row("a compressed stream cut short", rows(entry("file", data=b"x" * 99999)), "in the middle", "",
        lambda data: gzip.compress(data)[:-20]),
    Row("garbage behind the compressed stream", rows(FILE), "damaged", "",
        lambda data: gzip.compress(data) + b"garbage"),
    Row("an archive cut in a header", plain(HERE + HERE[:200]), "in the middle of a header"),
    Row("an archive cut in a file", plain(raw(b"f", data=b"x" * 2000)[:1500]), "in the middle of a file"),
    Row("garbage behind the archive", plain(HERE + END + b"garbage!" * 999), APPLIED),
    Row("no end", plain(HERE), APPLIED),
    Row("nothing at all", plain(b""), APPLIED),
    Row("an empty block between entries", plain(HERE + bytes(512) + HERE + END), "empty block"),
    Row("garbage for a header", plain(HERE + b"garbage!" * 64 + END), "checksum"),
    Row("a size that is no number", plain(raw(b"f", size=b"12345678xyz\0") + END), "size of an entry"),
    Row("a negative size", plain(raw(b"f", size=b"\xff" * 12) + END), "negative size"),
    Row("a size beyond all disks", plain(raw(b"f", size=b"\x80" + b"\x7f" * 11) + END), "in the middle of a file"),
    # --- pax
    Row("a pax path that climbs", plain(pax(b"path=../outside/x") + HERE + END), APPLIED),
    Row("a pax link that climbs", plain(pax(b"linkpath=../outside/secret") + raw(b"l", b"1", link=b"l") + END),
        "leads nowhere"),
    Row("a pax header of 2 MiB", plain(pax(b"comment=" + b"x" * (2 << 20)) + HERE + END), "a pax header"),
    Row("a long name of 2 MiB", plain(raw(b"L", b"L", b"x" * (2 << 20)) + HERE + END), "a pax header"),
    Row("a pax record with a false length", plain(raw(b"p", b"x", b"99 path=a\n") + HERE + END), "length"),
    Row("a pax size that is no number", plain(pax(b"size=-1") + HERE + END), "size"),
    Row("a pax header for all", plain(pax(b"path=../outside/x", kind=b"g") + HERE + END), APPLIED, REFUSES),
    Row("pax headers and no entry", plain(pax(b"path=x") + END), APPLIED),
    Row("an owner beyond the kernel's", plain(pax(b"uid=%d" % (1 << 40)) + HERE + END), "impossible entry",
        "cuts the number"),
    Row("a time before all times", plain(pax(b"mtime=-1000000.5") + HERE + END), APPLIED),
    Row("a time beyond all times", plain(pax(b"mtime=1" + b"0" * 30) + HERE + END), "impossible entry"),
]  # fmt: skip
