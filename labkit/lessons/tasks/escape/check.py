"""Top floor: the check of escape.

Owns: a careless unpacker, which trusts names and not the disk; what the layer did through it, and that it
does nothing of the kind through labkit's own.
Read: openat2(2), RESOLVE_IN_ROOT; symlink(7).
"""

from __future__ import annotations

import hashlib
import os
import tarfile

from labkit.errors import LabError
from labkit.image import unpack
from labkit.lessons.child import Child
from labkit.lessons.outcome import Wrong


def careless(layer, root):
    """Unpack as many programs once did; what it refuses, in words, or nothing."""
    with tarfile.open(layer) as archive:
        for entry in archive:
            parts = entry.name.split("/")
            if entry.name.startswith("/") or ".." in parts:
                return f"the entry {entry.name!r} is refused for its name"
            place = os.path.join(root, entry.name)
            if entry.isdir():
                os.makedirs(place, exist_ok=True)
            elif entry.issym():
                os.symlink(entry.linkname, place)
            elif entry.isreg():
                if not os.path.isdir(os.path.dirname(place)):
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "wb") as file:
                    file.write(archive.extractfile(entry).read())
            else:
                return f"the entry {entry.name!r} is refused: it is neither file nor folder nor symbolic link"
    return ""


def check(escape, lab):
    """The layer is made in a child, unpacked in another one, and then by labkit."""
    here = lab.folder()
    outside, other = here / f"out-{lab.token()}" / lab.token(), here / "root"
    outside.mkdir(parents=True)
    other.mkdir()
    name, text = lab.token(), lab.token(20)
    layer = here / "layer.tar"
    lab.call(escape, str(layer), str(outside), name, text)
    if not layer.exists():
        raise Wrong(f"there is no {layer}")
    if list(outside.iterdir()):
        raise Wrong("there is something in `outside` before anything was unpacked: the layer must do it")
    try:
        # labkit's own work, in the fence: what goes wrong in it is said here, and no fault of the function's line.
        refused = Child.do(lab.child("unpacker"), careless, str(layer), str(other))
    except (OSError, tarfile.TarError) as error:
        raise Wrong(f"the careless unpacker stopped: {type(error).__name__}: {error}") from error
    if refused:
        raise Wrong(refused)
    target = outside / name
    if not target.is_file():
        inside = sorted(os.fspath(path.relative_to(other)) for path in other.rglob("*"))
        raise Wrong(f"nothing came out: in the root there are {', '.join(inside) or 'no files'}")
    if target.read_text(errors="replace") != text:
        raise Wrong(f"the file outside holds {target.read_text(errors='replace')!r:.60}, and not the text")
    target.unlink()
    contained(layer, here, outside)


def contained(layer, here, outside):
    """The same layer, unpacked by labkit: whatever it makes of it, nothing comes out."""
    root = here / "safe"
    root.mkdir()
    plain = "sha256:" + hashlib.sha256(layer.read_bytes()).hexdigest()
    try:
        unpack.apply(layer, "", plain, root, overlay=False)
    except LabError:
        pass  # refused by name, which is as good
    if list(outside.iterdir()):
        raise AssertionError("labkit's own unpacker was left through this layer: please report it")
