"""Floor 3: `labkit cni`: which CNI networks there are, what their plugins speak, and whether a container's is whole.

Owns: the verb's options and what it prints.  A container is put on one by `labkit run --network cni:NAME`.

Read: labkit.network.cni; cnitool(1) for the same questions asked by hand.
"""

from __future__ import annotations

import argparse

from labkit.errors import LabError, NotFound
from labkit.network import cni, cni_config
from labkit.runtime import container, state


def main(argv: list[str]) -> int:
    """labkit cni list | versions PLUGIN ... | check CONTAINER"""
    parser = argparse.ArgumentParser(
        prog="labkit cni", description="networks that CNI plugins make: labkit run --network cni:NAME"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|versions|check")
    verbs.add_parser("list", help=f"the configurations in {cni_config.folder()} ($NETCONFPATH)")
    one = verbs.add_parser("versions", help="which versions of the specification plugins speak (VERSION)")
    one.add_argument("plugins", nargs="+", metavar="PLUGIN")
    one = verbs.add_parser("check", help="is all still as ADD left it? (CHECK)")
    one.add_argument("container", metavar="CONTAINER")
    given = parser.parse_args(argv)
    if given.verb == "versions":
        for kind in given.plugins:
            print(kind, *cni.versions(kind))
        return 0
    if given.verb == "check":
        return _check(given.container)
    return _list()


def _check(name: str) -> int:
    container.require_root()
    found = state.find(name)
    asked = cni.check(found["id"])
    print(f"{found['name']}: {'as ADD left it' if asked else 'not checked: its configuration does not want it'}")
    return 0


def _list() -> int:
    rows = [("NAME", "VERSION", "PLUGINS", "FILE")]
    files = cni_config.files()
    for file in files:
        try:
            read = cni_config.read(file)
            rows.append((read.name, read.version, ", ".join(one["type"] for one in read.plugins), str(file)))
        except LabError as error:
            rows.append(("-", "-", error.why, str(file)))
    if not files:
        raise NotFound(
            f"{cni_config.folder()} has no CNI configuration", next="write one there, or set NETCONFPATH", status=1
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
