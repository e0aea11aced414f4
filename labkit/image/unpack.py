"""Floor 2: layers out of their tar archives.

Owns: one pass over the bytes of a layer: both hashes and the extraction at once; several layers
onto each other.  What goes wrong names the entry, and what to do.

Read: the OCI image specification, layer ("Applying Changesets").
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

from labkit.errors import BadInput, LabError, Refused, explain
from labkit.image import model
from labkit.image.beneath import dress_as_below
from labkit.image.extract import NODES, Extractor
from labkit.image.owners import Owners
from labkit.image.store import Image, check
from labkit.image.stream import PlainStream
from labkit.image.tar import Entry, Reader

REMEDY = "nothing of this layer was kept: another tag of the image, or ask whoever built it"
FULL = (errno.ENOSPC, errno.EDQUOT)


def flatten(image: Image, root: Path, owners: Owners | None = None) -> None:
    """All layers, one applied onto the other, as one root file system in `root`. Raises LabError."""
    for layer, diff_id in image.stack:
        apply(
            image.store.path(layer.digest),
            model.LAYERS[layer.media_type],
            diff_id,
            root,
            overlay=False,
            digest=layer.digest,
            owners=owners,
        )


def apply(
    blob: Path,
    compression: str,
    diff_id: str,
    root: Path,
    *,
    overlay: bool,
    below: list[Path] | None = None,
    digest: str = "",
    owners: Owners | None = None,
) -> list[str]:
    """Extract one layer into `root`, in one pass over its bytes.

    overlay -- deletions become overlayfs's marks; otherwise they delete.
    below   -- the folders of the layers beneath, for folders that the archive only implies.
    digest  -- what the compressed bytes must hash to; "" when that is known already.
    owners  -- the user namespace that it is for; the owners as they are when there is none.
    Returns the folders that were only implied.  Raises Mismatch when the bytes are not what
    they should be; BadInput for an entry that cannot be meant; Refused, LabError.
    """
    extractor = Extractor(root, overlay, owners)
    stream = PlainStream(blob, compression)
    try:
        reader = Reader(stream)
        for entry in reader:
            _add(extractor, reader, entry)
        extractor.finish()
        diff, packed = stream.drain()
        check(digest or packed, packed, "a layer in the store")
        check(diff_id, diff, "the plain text of a layer")
        dress_as_below(root, extractor.place.implied, below or [])
        return extractor.place.implied
    except LabError as error:
        error.next = error.next or REMEDY
        raise
    finally:
        extractor.close()
        stream.close()


def _add(extractor: Extractor, reader: Reader, entry: Entry) -> None:
    """Make one entry; what the kernel or Python says against it names the entry."""
    try:
        extractor.add(reader, entry)
    except OSError as error:
        _explain(error, entry)
    except (ValueError, OverflowError) as error:  # a NUL in a name; a time or a device beyond the kernel's
        raise BadInput(f"a layer holds an impossible entry: {entry.name!r}", why=str(error)) from error


def _explain(error: OSError, entry: Entry) -> NoReturn:
    what = f"cannot unpack {entry.name!r}"
    if error.errno in FULL:
        explain(error, what, why="nothing of the layer is kept", next="labkit prune, or a larger disk: df -h")
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        raise Refused(what, why=str(error), next="run it as root") from error
    if error.errno == errno.EINVAL:
        explain(error, what, why=f"in a user namespace: has it the owner {entry.uid}:{entry.gid}?")
    if isinstance(error, PermissionError) and entry.kind in NODES:
        explain(error, what, why="in a user namespace nobody may make devices", next="unpack as the machine's root")
    explain(error, what)
