"""Floor 2: the lab's own images, made from the distribution's packages: no internet needed later.

    python -m labkit.image.kit build FOLDER [NAME...]     image layouts FOLDER/busybox, FOLDER/nginx, ...
    python -m labkit.image.kit push FOLDER REGISTRY

Owns: the table of the images, and how a folder of layouts becomes repositories and tags.
Packages are fetched by apt and read as archives, never installed.  Root is not needed, except that
`golang` runs its compiler with the image as the root: as root, or in a user namespace.

Read: kit_packages.py, kit_layout.py; kit_images.py, kit_debian.py, kit_golang.py for what is in them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from labkit.errors import LabError
from labkit.image import crane
from labkit.image.kit_debian import debian, static, static_nonroot
from labkit.image.kit_golang import golang
from labkit.image.kit_images import busybox, nginx
from labkit.image.kit_layout import describe, layout
from labkit.image.kit_packages import fetch

__all__ = ["IMAGES", "build", "describe", "fetch", "layout", "push"]

# A name with a tag is one tag beside those of the repository: static:nonroot.
IMAGES: dict[str, Callable[[Path, Path], None]] = {
    "busybox": busybox,
    "nginx": nginx,
    "debian": debian,
    "golang": golang,
    "static": static,
    "static:nonroot": static_nonroot,
}


def build(output: Path, names: list[str]) -> None:
    """Make the layouts. Raises LabError with apt's words when a package cannot be had."""
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            IMAGES[name](output / name, Path(work))
            print(f"{name}: {sum(f.stat().st_size for f in (output / name).rglob('*') if f.is_file()) / 1e6:.1f} MB")
    share(output)


def share(output: Path) -> None:
    """One copy on the disk of a blob that several layouts have, since one image stands on another."""
    first: dict[str, Path] = {}
    for blob in sorted(output.glob("*/blobs/sha256/*")):
        one = first.setdefault(blob.name, blob)
        if not one.samefile(blob):
            blob.unlink()
            os.link(one, blob)


def push(folder: Path, registry: str) -> None:
    """Push every layout below `folder`: NAME as NAME:VERSION and NAME:latest, NAME:TAG as that. Raises LabError."""
    for name in sorted(path.parent.name for path in folder.glob("*/index.json")):
        for target in tags(folder / name):
            crane.push(folder / name, f"{registry}/{target}")


def tags(layout_folder: Path) -> list[str]:
    """The names, without a registry, under which a layout is known."""
    if ":" in (name := layout_folder.name):
        return [name]
    index = json.loads((layout_folder / "index.json").read_text())
    version = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    return [f"{name}:{version}", f"{name}:latest"]


def main(argv: list[str]) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m labkit.image.kit")
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser("build")
    builder.add_argument("folder", type=Path)
    builder.add_argument("names", nargs="*", metavar="NAME", default=list(IMAGES), help=f"of {', '.join(IMAGES)}; all")
    pusher = verbs.add_parser("push")
    pusher.add_argument("folder", type=Path)
    pusher.add_argument("registry")
    given = parser.parse_args(argv)
    if given.verb == "build":
        if unknown := [name for name in given.names if name not in IMAGES]:
            parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(IMAGES)}")
        build(given.folder, given.names)
    else:
        push(given.folder, given.registry)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except LabError as problem:
        raise SystemExit(f"labkit.image.kit: {problem}") from None
