"""Floor 2: the verbs of the `labkit` command that deal with images: pull, images, registry."""

from __future__ import annotations

import argparse

from labkit.image import model


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
    """labkit images"""
    argparse.ArgumentParser(prog="labkit images", description="list the images in the store").parse_args(argv)
    from labkit.image.store import Store

    store = Store()
    rows = [("IMAGE", "MANIFEST", "LAYERS", "SIZE")]
    for name in sorted(store.names()):
        image = store.find(name)
        if image is not None:
            rows.append((name, image.digest[7:19], str(len(image.manifest.layers)), f"{image.size / 1e6:.1f} MB"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


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

    with serve(given.address) as address:
        if given.folder:
            kit.push(Path(given.folder), address)
        print(f"serving on {address}; Ctrl-C ends it", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0
