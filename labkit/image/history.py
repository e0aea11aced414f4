"""Floor 2: how an image was made, as its configuration tells it: `labkit history`.

Owns: bringing the lines of the history and the layers together (a line has a layer, or says that it has
none), what each layer's files are in bytes, and the table, which is docker history's.

Read: the OCI image specification, config ("history"); docker-history(1).
"""

from __future__ import annotations

import datetime
import json
from typing import NamedTuple

from labkit.image import layers, model
from labkit.image.store import Image

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
# The first one that fits names the age: seconds in it, its name.
AGES = ((31_536_000 * 2, 31_536_000, "years"), (2_592_000 * 2, 2_592_000, "months"), (604_800 * 2, 604_800, "weeks"),
        (86_400 * 2, 86_400, "days"), (3_600 * 2, 3_600, "hours"), (60 * 2, 60, "minutes"))  # fmt: skip
WIDTH = 45  # of created_by, as docker cuts it


class Line(NamedTuple):
    """One line of the history; layer and chain are "" where it made none."""

    created: str
    created_by: str
    comment: str
    layer: str  # digest of the blob
    chain: str  # chain ID: what the unpacked layer's folder is called
    size: int  # bytes of the files in it


def lines(image: Image) -> list[Line]:
    """The last one first. Raises LabError; layers that the history does not name come first of all."""
    stack = list(zip(image.stack, layers.chain_ids(image.config.diff_ids), strict=True))
    found = []
    for each in image.config.history:
        made = stack.pop(0) if not each.get("empty_layer") and stack else None
        found.append(_line(image, each, made))
    found += [_line(image, {"created_by": "(the history does not say)"}, made) for made in stack]
    return found[::-1]


def _line(image: Image, each: object, made: tuple[tuple[model.Descriptor, str], str] | None) -> Line:
    said = each if isinstance(each, dict) else {}
    created, created_by, comment = (str(said.get(key) or "") for key in ("created", "created_by", "comment"))
    if made is None:
        return Line(created, created_by, comment, "", "", 0)
    (layer, _), chain = made
    return Line(created, created_by, comment, layer.digest, chain, size(image, layer, chain))


def size(image: Image, layer: model.Descriptor, chain: str) -> int:
    """Bytes of the files in a layer: of its folder where it is unpacked, else of its archive. Raises LabError."""
    from labkit.image.build.layer import content
    from labkit.image.stream import PlainStream
    from labkit.image.tar import Reader

    folder = layers.folder() / chain.removeprefix("sha256:")
    if folder.is_dir():
        return content(folder)
    stream = PlainStream(image.store.path(layer.digest), model.LAYERS[layer.media_type])
    try:
        return sum(entry.length for entry in Reader(stream) if entry.kind == "file")
    finally:
        stream.close()


def as_json(image: Image) -> str:
    """All of it, for programs."""
    return json.dumps([line._asdict() for line in lines(image)], indent=1)


def table(image: Image, *, whole: bool = False, now: float | None = None) -> str:
    """The table of docker history; `now` in seconds since 1970."""
    moment = datetime.datetime.now(datetime.UTC).timestamp() if now is None else now
    rows = [("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT")]
    identifier = image.manifest.config.digest
    for number, line in enumerate(lines(image)):
        name = "<missing>" if number else identifier if whole else identifier[7:19]
        said = " ".join(line.created_by.split())
        said = said if whole or len(said) <= WIDTH else said[: WIDTH - 1] + "…"
        rows.append((name, age(line.created, moment), said, human(line.size), line.comment))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def human(count: int) -> str:
    """Bytes with three digits, units of 1000: 0B, 1.23kB, 45.6MB."""
    number, unit = float(count), 0
    while number >= 1000 and unit < len(UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.3g}{UNITS[unit]}"


def age(created: str, now: float) -> str:
    """How long ago: 3 weeks ago; N/A for what is no time."""
    try:
        when = datetime.datetime.fromisoformat(created[:19]).replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        return "N/A"
    seconds = int(now - when)
    for least, unit, name in AGES:
        if seconds >= least:
            return f"{seconds // unit} {name} ago"
    return f"{max(seconds, 0)} seconds ago"
