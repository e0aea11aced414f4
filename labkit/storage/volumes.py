"""Floor 2: volumes: a folder of the machine seen inside a container, past all layers.

Owns: what `-v` means, and the folders of named volumes, which outlive containers and
`labkit reset`: they hold what somebody wanted to keep.

Read: mount(2) on bind mounts; Docker's documentation of `docker run --volume`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from labkit import paths
from labkit.errors import BadInput, explain

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
# Docker's ro means what is mounted below as well (since 25.0): the specification calls that rro.
MODES = {"rw": [], "ro": ["rro"]}


class Volume(NamedTuple):
    """One -v: a folder or file of the machine, where it is seen inside, and how."""

    source: Path
    target: str
    options: list[str]


def parse(text: str) -> Volume:
    """SOURCE:TARGET[:ro|rw], SOURCE an absolute path or a volume's name.

    Raises BadInput, naming what is wrong.
    """
    usage = "write --volume SOURCE:TARGET or SOURCE:TARGET:ro"
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    mode = mode or "rw"
    if not source or not target.startswith("/") or target == "/":
        raise BadInput(f"--volume {text!r} cannot be understood", why="TARGET is an absolute path, not /", next=usage)
    if mode not in MODES:
        raise BadInput(f"--volume {text!r} cannot be understood", why=f"{mode!r} is not ro or rw", next=usage)
    if source.startswith(("/", ".")):
        return Volume(Path(source).absolute(), target, MODES[mode])
    if not NAME.fullmatch(source):
        raise BadInput(f"--volume {text!r}: {source!r} is no name for a volume", next="a path begins with / or .")
    return Volume(paths.data() / "volumes" / source / "_data", target, MODES[mode])


def prepare(volume: Volume) -> None:
    """Make the source folder when it is missing, as Docker does. Raises LabError."""
    try:
        volume.source.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file, socket or device is a fine volume too
        pass
    except OSError as error:
        explain(error, f"cannot make the volume's folder {volume.source}")
