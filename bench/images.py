"""What is raced over: the kit's busybox as a root file system, an image of 200 MB, and one of 10,000 files.

Owns: the generated layers.  They come from a seed, so that every run unpacks the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

from labkit.image import kit, tarball
from labkit.image.store import REF_NAME

BUSYBOX = "localhost:5000/busybox:latest"
# What is unpacked: {folder of its layout: its name}
UNPACKED = {"files": "localhost:5000/files:latest", "large": "localhost:5000/large:latest"}
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
SEED = 20_26
WHEN = 1_700_000_000  # seconds since 1970, of all generated files
SMALL_FILES, LARGE_FILES = 4000, 54
MANY_FILES = 10_000
LARGE_SIZE = 3 << 20  # bytes


def build(folder: Path, small: bool = False) -> None:
    """FOLDER/busybox, FOLDER/large and FOLDER/files, each an image layout; `small` makes a tenth of each layer."""
    divisor = 10 if small else 1
    kit.build(folder, ["busybox", "nginx"])
    (folder / "nginx").rename(folder / "large")
    append(folder / "large", generated(divisor))
    kit.layout(folder / "files", "latest", [("many small files", many(divisor))], {}, WHEN)
    for name, reference in {"busybox": BUSYBOX, **UNPACKED}.items():
        rename(folder / name, reference)


def many(divisor: int = 1) -> list[tarball.Entry]:
    """Small files by the hundred, as an interpreter's library has them: about 30 MB."""
    chance = random.Random(SEED)
    entries = [tarball.folder("srv")]
    for number in range(MANY_FILES // divisor):
        if number % 100 == 0:
            place = f"srv/part{number // 100:03}"
            entries.append(tarball.folder(place))
        entries.append(tarball.file(f"{place}/file{number:05}", content(chance, int(chance.lognormvariate(7.5, 1)))))
    return entries


def generated(divisor: int = 1) -> list[tarball.Entry]:
    """Many small files and a few large ones, half noise and half text: about 200 MB that compress by half."""
    chance = random.Random(SEED)
    entries = [tarball.folder("opt"), tarball.folder("opt/bench")]
    for number in range(SMALL_FILES // divisor):
        if number % 100 == 0:
            place = f"opt/bench/part{number // 100:03}"
            entries.append(tarball.folder(place))
        size = min(int(chance.lognormvariate(8, 1)), 1 << 17)
        entries.append(tarball.file(f"{place}/file{number:05}", content(chance, size)))
    for number in range(max(LARGE_FILES // divisor, 1)):
        entries.append(tarball.file(f"opt/bench/large{number:02}", content(chance, LARGE_SIZE)))
    return entries


def content(chance: random.Random, size: int) -> bytes:
    """`size` bytes, pieces of noise between pieces of text."""
    piece = 1024
    text = (b"all work and no play makes a dull layer\n" * 26)[:piece]
    pieces = (chance.randbytes(piece) if number % 2 else text for number in range(-(-size // piece)))
    return b"".join(pieces)[:size]


def append(layout: Path, entries: list[tarball.Entry]) -> None:
    """Put one more layer on the one image of a layout."""
    index = json.loads((layout / "index.json").read_text())
    manifest = blob(layout, index["manifests"][0]["digest"])
    config = blob(layout, manifest["config"]["digest"])
    layer = tarball.layer(entries, WHEN)
    config["rootfs"]["diff_ids"].append(layer.diff_id)
    config["history"].append({"created_by": "bench: files from a seed"})
    manifest["layers"].append(put(layout, LAYER, layer.data))
    manifest["config"] = put(layout, manifest["config"]["mediaType"], json.dumps(config).encode())
    index["manifests"] = [put(layout, index["manifests"][0]["mediaType"], json.dumps(manifest).encode())]
    (layout / "index.json").write_text(json.dumps(index))


def rename(layout: Path, name: str) -> None:
    """Give the one image of a layout the name by which labkit's store and umoci find it."""
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["annotations"] = {REF_NAME: name}
    (layout / "index.json").write_text(json.dumps(index))


def blob(layout: Path, digest: str) -> dict[str, Any]:
    """A JSON blob of a layout."""
    document: dict[str, Any] = json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())
    return document


def put(layout: Path, media_type: str, data: bytes) -> dict[str, Any]:
    """Add a blob to a layout; its descriptor."""
    descriptor = kit.describe(media_type, data)
    (layout / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")).write_bytes(data)
    return descriptor


def sizes(layout: Path) -> tuple[int, int]:
    """Of the image's layers: bytes of the plain tar archives, and how many entries these have."""
    index = json.loads((layout / "index.json").read_text())
    total = entries = 0
    for layer in blob(layout, index["manifests"][0]["digest"])["layers"]:
        packed = layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:")
        plain = gzip.decompress(packed.read_bytes())
        total += len(plain)
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            entries += len(archive.getnames())
    return total, entries
