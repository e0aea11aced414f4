"""Reading floor: `labkit census`.

Owns: the command's options and its text.

Read: labkit/observe/census.py for what is counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from labkit.errors import BadInput
from labkit.observe import census as counting


def census(argv: list[str]) -> int:
    """labkit census [--all | --json | --since FILE]; 1 when the machine differs from FILE."""
    parser = argparse.ArgumentParser(
        prog="labkit census", description="count what the kernel holds: mounts, cgroups, links, rules, processes, ..."
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-a", "--all", action="store_true", help="name each thing")
    how.add_argument("--json", action="store_true", help="as JSON, for a later --since")
    how.add_argument("--since", type=Path, metavar="FILE", help="what came and went since FILE was written by --json")
    given = parser.parse_args(argv)
    now = counting.take()
    if given.json:
        print(json.dumps(now, indent=1))
    elif given.since:
        lines = counting.difference(_load(given.since), now)
        print(*(lines or ["nothing came, nothing went"]), sep="\n")
        return 1 if lines else 0
    else:
        for kind, names in now.items():
            print(f"{kind:<8} {len(names)}")
            if given.all:
                print(*(f"         {name}" for name in names), sep="\n", end="\n" if names else "")
    return 0


def _load(file: Path) -> counting.Census:
    try:
        found = json.loads(file.read_text())
        return {kind: [str(name) for name in found[kind]] for kind in found}
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{file} holds no census", why=str(error), next=f"labkit census --json > {file}") from error
