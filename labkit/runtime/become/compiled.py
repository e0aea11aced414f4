"""Floor 3: seccomp programs that were compiled before, kept as bytes in a folder of the runtime's.

Owns: the folder's files and the question whether one may be believed.  An engine gives the same profile
to nearly every container, and compiling Docker's takes 20 ms: as long as all the rest of a start.

A file holds what it was made from, whole: the profile's text, and the sizes and times of the compiler's
own sources.  It counts only where both are the same to the letter, so no hash needs to be trusted, and a
newer labkit compiles anew.  It counts only as a file of this user's that nobody else may write.  There
are PLACES files at most: a profile's place comes from a checksum, and who comes later takes it over.

Read: seccomp(2); struct sock_filter in include/uapi/linux/filter.h.
"""

from __future__ import annotations

import binascii
import os
import stat

import labkit.kernel
from labkit import leanjson
from labkit.kernel.syscalls import MACHINE
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

PLACES = 64
LARGEST = 1 << 20  # bytes of a file; Docker's profile makes 13 000
SOURCES = ("callnumbers.py", "constants.py", *(f"seccomp/{name}.py" for name in ("classic", "compiler", "machines",
           "profile")))  # fmt: skip
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def head(given: dict[str, Any]) -> bytes:
    """What a program depends on, as one line."""
    folder = os.path.dirname(labkit.kernel.__file__)
    sources = [(found.st_mtime_ns, found.st_size) for found in (os.stat(f"{folder}/{name}") for name in SOURCES)]
    return leanjson.dumps([MACHINE, sources, given]).encode() + b"\n"


def find(folder: str, key: bytes) -> tuple[dict[str, Any], bytes] | None:
    """What `keep` was given for this head; None when it is not there or not to be believed."""
    try:
        fd = os.open(_place(folder, key), OPEN)
    except OSError:
        return None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
            return None
        whole = os.read(fd, LARGEST)
    except OSError:
        return None
    finally:
        os.close(fd)
    if not whole.startswith(key):
        return None
    said, newline, rest = whole[len(key) :].partition(b"\n")
    try:
        found: dict[str, Any] = leanjson.loads(said)
    except ValueError:
        return None
    return (found, rest) if newline and len(rest) == found.get("bytes") else None


def keep(folder: str, key: bytes, said: dict[str, Any], program: bytes) -> None:
    """Keep it for the next time.  A folder that cannot be written is no error: it only costs that time."""
    place = _place(folder, key)
    fresh = f"{place}.{os.getpid()}"
    if len(key) + len(program) > LARGEST - 4096:
        return
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(key + leanjson.dumps({**said, "bytes": len(program)}).encode() + b"\n" + program)
        os.rename(fresh, place)  # whole, or not at all
    except OSError:
        try:
            os.unlink(fresh)
        except OSError:
            pass


def _place(folder: str, key: bytes) -> str:
    return f"{folder}/{binascii.crc32(key) % PLACES:02}.bpf"
