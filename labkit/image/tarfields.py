"""Floor 2: what stands in the fields of a tar header and in the records of pax.

Owns: numbers in octal, base 256 and decimal, times, names, checksums, records.  What is no such
thing is an error with the field's name in it.

Read: pax(1) and "ustar Interchange Format" in POSIX; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from labkit.errors import BadInput

LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")
SECONDS = re.compile(rb"(-?)([0-9]{1,40})(?:\.([0-9]*))?")


def check_sum(block: bytes, written: bytes) -> None:
    """The sum of all bytes, the field itself counted as spaces; very old archives counted signed. Raises BadInput."""
    promised = number(written, "checksum")
    actual = sum(block) - sum(written) + 8 * 32
    if promised != actual:
        signed = sum(struct.unpack("512b", block)) - sum(struct.unpack("8b", written)) + 8 * 32
        if promised != signed:
            raise damaged("a header's checksum is wrong")


def number(text: bytes, what: str) -> int:
    """Octal digits, or GNU's base 256 when the first bit is set; 0 for an empty field. Raises BadInput."""
    if text[0] & 0x80:
        value = int.from_bytes(text, "big") & ((1 << (8 * len(text) - 1)) - 1)
        return value - (1 << (8 * len(text) - 1)) if text[0] & 0x40 else value
    digits = text.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise damaged(f"the {what} of an entry is {digits!r}")


def decimal(text: bytes, what: str) -> int:
    """Decimal digits, as pax and the sparse maps have them. Raises BadInput."""
    if not text.isdigit() or len(text) > 20:
        raise damaged(f"the {what} of an entry is {text[:40]!r}")
    return int(text)


def text_of(name: bytes) -> str:
    """A name as Python's os takes it: bytes that are no UTF-8 become surrogates."""
    return name.decode("utf-8", "surrogateescape")


def damaged(why: str) -> BadInput:
    """The one error for an archive that cannot be read on."""
    return BadInput("a layer's archive is damaged: its header or its end", why=why)


def records_of(text: bytes) -> Iterator[tuple[str, bytes]]:
    """(key, value) of each "LENGTH KEY=VALUE\\n"; GNU's sparse map 0.0 comes as one, as in 0.1."""
    at, numbers = 0, list[bytes]()
    while at < len(text):
        match = LENGTH.match(text, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(text) or text[end - 1 : end] != b"\n" or end <= match.end():
            raise damaged("a pax record does not have the length that it says")
        key, equals, value = text[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise damaged("a pax record has no key")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            numbers.append(value)
        else:
            yield text_of(key), value
        at = end
    if numbers:
        yield "GNU.sparse.map", b",".join(numbers)


def nanoseconds(text: bytes) -> int:
    """Decimal seconds since 1970 with a fraction; what is below a nanosecond is cut. Raises BadInput."""
    match = SECONDS.fullmatch(text)
    if match is None:
        raise damaged(f"the time of an entry is {text[:40]!r}")
    value = int(match[2]) * 1_000_000_000 + int((match[3] or b"0")[:9].ljust(9, b"0"))
    return -value if match[1] else value
