"""Floor 2: the verbs of the `labkit` command that deal with images: pull, images, history, rmi, prune, registry.

Owns: their options, what each prints, its exit status, and which signals end the registry.  What they do
is the store's and labkit.image.collect's.

Read: docker-pull(1), docker-images(1), docker-rmi(1), whose words they use; sigwait(3).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.image import model

if TYPE_CHECKING:
    from labkit.image.collect import Freed


def pull(argv: list[str]) -> int:
    """labkit pull [--platform OS/ARCH] IMAGE"""
    parser = argparse.ArgumentParser(prog="labkit pull", description="fetch an image from a registry into the store")
    parser.add_argument("--platform", default=model.host_platform())
    parser.add_argument("image", metavar="IMAGE")
    given = parser.parse_args(argv)
    from labkit.image.store import Store

    image = Store().pull(given.image, given.platform)
    print(f"{image.name}  {image.digest}  {len(image.manifest.layers)} layers, {image.size / 1e6:.1f} MB")
    return 0


def images(argv: list[str]) -> int:
    """labkit images [--verify]"""
    parser = argparse.ArgumentParser(prog="labkit images", description="list the images in the store")
    parser.add_argument("--verify", action="store_true", help="read every blob again, and compare it with its name")
    given = parser.parse_args(argv)
    from labkit.image.store import Store

    store = Store()
    if given.verify:
        from labkit.image import collect

        wrong = list(collect.verify(store))
        print("\n".join(wrong) or "every blob is what its name says, and no image lacks one")
        return 1 if wrong else 0
    rows = [("IMAGE", "MANIFEST", "LAYERS", "SIZE")]
    for name, digest in sorted(store.names().items()):
        try:
            image = store.get(name)
        except LabError:  # one damaged image must not hide the others
            rows.append((name, digest[7:19], "?", "damaged: labkit pull it again"))
            continue
        rows.append((name, digest[7:19], str(len(image.manifest.layers)), f"{image.size / 1e6:.1f} MB"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def history(argv: list[str]) -> int:
    """labkit history [--no-trunc] [--json] IMAGE"""
    parser = argparse.ArgumentParser(
        prog="labkit history", description="how an image was made: a line an instruction, the last one first"
    )
    parser.add_argument("--no-trunc", action="store_true", help="whole lines")
    parser.add_argument("--json", action="store_true", help="everything that is known, as JSON, sizes in bytes")
    parser.add_argument("image", metavar="IMAGE")
    given = parser.parse_args(argv)
    from labkit.image import history as told
    from labkit.image.store import Store

    image = Store().get(given.image)
    print(told.as_json(image) if given.json else told.table(image, whole=given.no_trunc))
    return 0


def rmi(argv: list[str]) -> int:
    """labkit rmi IMAGE ..."""
    parser = argparse.ArgumentParser(
        prog="labkit rmi", description="take an image's name away, and remove what no other image needs"
    )
    parser.add_argument("image", nargs="+", metavar="IMAGE")
    given = parser.parse_args(argv)
    from labkit.image import collect
    from labkit.image.store import Store

    for name in given.image:
        digest, freed = collect.drop(Store(), name)
        print(f"Untagged: {name} ({digest})")
        _tell(freed, "Deleted")
    _tell_unreadable()
    return 0


def prune(argv: list[str]) -> int:
    """labkit prune [--dry-run]"""
    parser = argparse.ArgumentParser(
        prog="labkit prune", description="remove blobs and unpacked layers that no image needs, and the build cache"
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    given = parser.parse_args(argv)
    from labkit.image import collect
    from labkit.image.store import Store

    _tell(collect.prune(Store(), dry=given.dry_run), "Would delete" if given.dry_run else "Deleted")
    _tell_unreadable()
    return 0


def _tell_unreadable() -> None:
    from labkit.image import collect
    from labkit.image.store import Store

    for name, error in collect.unreadable(Store()).items():
        print(f"{name} is damaged, and what it may need was kept: {error.what}", file=sys.stderr)
        print(f"  next: {error.next}", file=sys.stderr)


def _tell(freed: list[Freed], verb: str) -> None:
    for each in freed:
        print(f"{verb}: {each.kind} {each.name}  {each.size / 1e6:.1f} MB")
    what = "Total reclaimed space" if verb == "Deleted" else "Would reclaim"
    print(f"{what}: {sum(each.size for each in freed) / 1e6:.1f} MB")


def registry(argv: list[str]) -> int:
    """labkit registry [--address HOST:PORT] [FOLDER]"""
    parser = argparse.ArgumentParser(
        prog="labkit registry", description="serve a registry on the loopback, filled with the layouts below FOLDER"
    )
    parser.add_argument("--address", default="127.0.0.1:5000")
    parser.add_argument("folder", nargs="?", metavar="FOLDER")
    given = parser.parse_args(argv)
    import signal
    from pathlib import Path

    from labkit.image import kit
    from labkit.image.registry import serve

    ends = {signal.SIGINT, signal.SIGTERM}
    # Until it waits, SIGTERM ends this as Ctrl-C does; at once, as it does by default, would leave crane behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with serve(given.address) as address:
            if given.folder:
                kit.push(Path(given.folder), address)
            # Only now: crane and what pushes must not inherit this.
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)
            print(f"serving on {address}; Ctrl-C ends it", flush=True)
            signal.sigwait(ends)
    except KeyboardInterrupt:
        return 130  # what a shell reports for SIGINT
    return 0
