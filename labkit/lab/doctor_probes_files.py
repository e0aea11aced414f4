"""Top floor: probes of overlayfs, as root on the lab's own disk and inside a user namespace.

Owns: a mount with one lower folder, and the proof that a write goes up and the lower stays.

Read: Documentation/filesystems/overlayfs.rst, mount_namespaces(7).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel import mounts, namespaces
from labkit.kernel.overlay import mount_overlay
from labkit.lab import doctor_probes_leftovers as leftovers
from labkit.lab.doctor_probes import Probe, Seen, why
from labkit.lab.doctor_probes_namespaces import AS_ROOT, become_root_of_new, fence, refused


def _try(place: Path) -> str:
    """Mount an overlay below `place`; what is wrong with it, or nothing. Raises LabError, OSError."""
    for folder in ("lower", "upper", "work", "merged"):
        (place / folder).mkdir()
    (place / "lower/kept").write_text("from the layer")
    (place / "lower/gone").write_text("from the layer")
    mount_overlay(place / "merged", [place / "lower"], place / "upper", place / "work")
    try:
        (place / "merged/kept").write_text("changed")
        (place / "merged/gone").unlink()
        layer = (place / "lower/kept").read_text(), (place / "lower/gone").exists()
        above = (place / "upper/kept").read_text(), os.path.lexists(place / "upper/gone")
        seen = sorted(os.listdir(place / "merged"))
    finally:
        mounts.unmount(place / "merged")
    good = (("from the layer", True), ("changed", True), ["kept"])
    return "" if (layer, above, seen) == good else "mounted, but a write did not go to the upper folder alone"


def on_disk() -> dict[str, Seen]:
    """Where the kit keeps its layers: an upper folder that is itself on an overlay is refused."""
    if os.geteuid() != 0:
        return {"overlay": Seen("missing", f"not tried: mounting on the disk is root's, this is uid {os.geteuid()}",
                                AS_ROOT)}  # fmt: skip
    fence("mnt")
    place = leftovers.ground() / leftovers.name()
    try:
        place.mkdir(mode=0o700)
        wrong = _try(place)
    except (OSError, LabError) as error:
        return {"overlay": Seen("missing", f"{why(error)} at {place.parent}")}
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {"overlay": Seen("limited", wrong) if wrong else Seen("ok", f"mounted one at {place.parent}, writes go up")}


def in_user_namespace() -> dict[str, Seen]:
    """The same on a tmpfs inside a user namespace, as rootless containers do (Linux 5.11)."""
    try:
        become_root_of_new()
        namespaces.leave(["mnt"])
        mounts.propagate("/", "rprivate")
        place = next(path for path in (Path("/mnt"), Path("/srv"), Path("/tmp")) if path.is_dir())
        mounts.mount("tmpfs", place, "tmpfs")
        wrong = _try(place)
    except (OSError, LabError) as error:
        return {"overlay.userns": refused(error)}
    found = "mounted one inside a user namespace, writes go up"
    return {"overlay.userns": Seen("limited", wrong) if wrong else Seen("ok", found)}


PROBES = {
    "overlay": Probe(("overlay",), on_disk),
    "overlay.userns": Probe(("overlay.userns",), in_user_namespace),
}
