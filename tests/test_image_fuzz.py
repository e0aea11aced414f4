"""Do the readers of archives and documents end with an answer or with our own error, whatever they are given?"""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from image.hostile import TABLE, pax, raw

from labkit.errors import LabError
from labkit.image import model, tarball
from labkit.image.store import Store
from labkit.image.tar import LONGEST, Reader
from labkit.image.unpack import apply

LONG = 600  # seconds of `make test-long`, shared by the three
CALM = [HealthCheck.too_slow, HealthCheck.data_too_large]
DIGEST = "sha256:" + "a" * 64


class Bytes(io.BytesIO):
    """Bytes as the reader's source."""

    def take(self, most: int) -> bytes:
        return self.read(min(most, 1 << 16))


def _read(source: Bytes) -> int:
    """Read an archive to its end; how many entries it has. Raises BadInput alone."""
    count = 0
    reader = Reader(source)
    try:
        for entry in reader:
            count += 1
            assert entry.size >= 0 and isinstance(entry.name, str)
            if entry.extents is not None:
                assert sum(length for _, length in entry.extents) == sum(len(piece) for piece in reader.data())
    except LabError as error:
        assert error.what and error.why
    return count


# --- archives ----------------------------------------------------------------------------

FIELD = some.one_of(
    some.binary(max_size=12),
    some.sampled_from([b"", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b" 1 \0", b"+1", b"1_0", b"0o17"]),
)
NAME = some.one_of(some.binary(max_size=100), some.sampled_from([b"..", b"../x", b"/", b".wh.x", b"a/.wh..wh..opq"]))
KEY = some.sampled_from(
    [b"path", b"linkpath", b"size", b"mtime", b"uid", b"GNU.sparse.map", b"GNU.sparse.major", b"GNU.sparse.minor",
     b"GNU.sparse.realsize", b"GNU.sparse.numblocks", b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.name",
     b"SCHILY.xattr.user.x", b"SCHILY.xattr.security.capability"]
)  # fmt: skip
VALUE = some.one_of(some.binary(max_size=30), some.integers(-9, 1 << 70).map(lambda n: b"%d" % n),
                    some.sampled_from([b"1", b"0,1,512,2", b"1.5", b"-1.999"]))  # fmt: skip
KINDS = some.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"Z"])
HEADERS = some.builds(
    lambda name, kind, data, size, fields: raw(name, kind, data, size=size, **fields),
    NAME, KINDS, some.binary(max_size=1200), some.one_of(some.none(), FIELD),
    some.dictionaries(some.sampled_from(["mode", "uid", "gid", "mtime", "link", "devmajor", "devminor", "prefix"]),
                      some.binary(max_size=8), max_size=3),
)  # fmt: skip
SPARSE = some.builds(
    lambda tail: raw(b"hole", b"S", b"x" * 512, magic=b"ustar  \0", tail=tail), some.binary(max_size=110)
)
PAX = some.lists(some.builds(lambda key, value: key + b"=" + value, KEY, VALUE), min_size=1, max_size=4).map(
    lambda records: pax(*records)
)
ARCHIVES = some.lists(some.one_of(HEADERS, PAX, SPARSE, some.binary(max_size=600)), max_size=5).map(b"".join)


@some.composite
def damaged(draw: Any) -> bytes:
    """A layer of the hostile table with bytes changed, taken out or put in."""
    data = bytearray(_known()[draw(some.integers(0, len(_known()) - 1))])
    for _ in range(draw(some.integers(1, 4))):
        at = draw(some.integers(0, max(len(data) - 1, 0)))
        how = draw(some.sampled_from(["change", "cut", "put", "end"]))
        if how == "change" and data:
            data[at] = draw(some.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(some.integers(1, 600))]
        elif how == "put":
            data[at:at] = draw(some.binary(max_size=20))
        else:
            del data[at:]
    return bytes(data)


def _known(found: list[bytes] = []) -> list[bytes]:  # noqa: B006
    if not found:
        found += [layer for row in TABLE if len(layer := row.layer("/nowhere")) < 9000]
    return found


def _any_archive(data: bytes) -> None:
    _read(Bytes(data))


def _applied(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as here:
        blob, root = Path(here) / "blob", Path(here) / "root"
        blob.write_bytes(data)
        root.mkdir()
        try:
            apply(blob, "", tarball.sha256(data), root, overlay=random.random() < 0.5)
        except LabError as error:
            assert error.what and error.why and error.next
        assert sorted(path.name for path in Path(here).iterdir()) == ["blob", "root"]


# --- documents ---------------------------------------------------------------------------

JSON = some.recursive(
    some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), some.text(max_size=9),
                some.sampled_from([DIGEST, *model.MANIFESTS, *model.INDEXES, *model.CONFIGS, *model.LAYERS])),
    lambda inner: some.one_of(
        some.lists(inner, max_size=4),
        some.dictionaries(
            some.sampled_from(["mediaType", "digest", "size", "config", "layers", "manifests", "rootfs", "diff_ids",
                               "platform", "annotations", "history", "os", "architecture", "variant"]),
            inner, max_size=6),
    ),
    max_leaves=25,
)  # fmt: skip


def _any_document(document: Any) -> None:
    with tempfile.TemporaryDirectory() as here:
        (Path(here) / "index.json").write_text(json.dumps(document))
        readers: list[Callable[[], object]] = [
            lambda: model.Manifest.read(model.parse(json.dumps(document).encode(), "it")),
            lambda: model.Config.read(document),
            lambda: model.Descriptor.read(document),
            lambda: model.kind(model.parse(json.dumps(document).encode(), "it")),
            lambda: model.choose(document, "linux/arm64"),
            lambda: Store(Path(here)).names(),
        ]
        for read in readers:
            try:
                read()
            except LabError as error:
                assert error.what and error.why


WHAT: dict[str, tuple[some.SearchStrategy[Any], Callable[[Any], None]]] = {
    "archives": (some.one_of(ARCHIVES, damaged(), some.binary(max_size=2000)), _any_archive),
    "layers": (some.one_of(ARCHIVES, damaged()), _applied),
    "documents": (JSON, _any_document),
}


def _fuzz(what: str, examples: int) -> None:
    strategy, check = WHAT[what]

    @settings(max_examples=examples, deadline=None, suppress_health_check=CALM, database=None)
    @given(strategy)
    def run(value: Any) -> None:
        check(value)

    run()


@pytest.mark.root
@pytest.mark.parametrize("what", WHAT)
def test_whatever_is_read_ends_in_an_answer_or_our_error(what: str) -> None:
    """Random and damaged archives, layers of them, and JSON of the right words in the wrong places."""
    _fuzz(what, 150)


@pytest.mark.long
@pytest.mark.root
@pytest.mark.parametrize("what", WHAT)
def test_whatever_is_read_for_ten_minutes(what: str) -> None:
    """The same, until its share of ten minutes is over."""
    end = time.monotonic() + LONG / len(WHAT)
    while time.monotonic() < end:
        _fuzz(what, 1000)


def test_brackets_a_thousand_deep_are_our_error() -> None:
    """Deeper JSON than Python recurses."""
    with pytest.raises(LabError, match="is no JSON"):
        model.parse(b"[" * 100_000, "it")


def test_many_headers_take_no_memory() -> None:
    """Forty megabytes of pax headers before one entry: each takes the place of the one before."""
    source = Bytes(pax(b"comment=" + b"x" * 900_000) * 40 + raw(b"f") + bytes(1024))
    tracemalloc.start()
    try:
        assert _read(source) == 1
        assert tracemalloc.get_traced_memory()[1] < 8 * LONGEST
    finally:
        tracemalloc.stop()
