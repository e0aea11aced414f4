"""Top floor: what a learner has done, in one file beside the notebooks.

Owns: the folder `my/` (or $LABKIT_PROGRESS: the notebooks' own runs start from an empty
one), progress.json in it, and changing that file so that two notebooks at once, or a lab
that is interrupted, never leave half of it.  A file that cannot be read is set aside and
told, never written over.

Read: flock(2), rename(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[2]
VARIABLE = "LABKIT_PROGRESS"
FILE = "progress.json"
# What an exercise can be in the file; one that was never touched is not there.
SOLVED, LOADED, TRIED = "yours", "labkit's", "tried"

Record = dict[str, Any]


def folder() -> Path:
    """Where the learner's own work is kept; it need not be there yet."""
    return Path(os.environ.get(VARIABLE) or TREE / "notebooks" / "my")


def shown(path: Path) -> str:
    """A path as a person in the checkout would write it."""
    return str(path.relative_to(TREE)) if path.is_relative_to(TREE) else str(path)


def load() -> Record:
    """{"exercises": {name: ...}, "predictions": {name: ...}}; empty ones when nothing was done."""
    file = folder() / FILE
    try:
        found = json.loads(file.read_text())
        if not all(isinstance(found[part], dict) for part in ("exercises", "predictions")):
            raise ValueError("it lacks its two parts")
        if not all(isinstance(one, dict) for part in ("exercises", "predictions") for one in found[part].values()):
            raise ValueError("an entry is no table")
        return dict(found)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        print(f"{shown(file)} cannot be read: {error}")
    except (ValueError, KeyError, TypeError) as error:
        aside = _aside(file)
        print(f"{shown(file)} cannot be read ({error}): set aside as {aside}; progress is counted anew")
    return {"exercises": {}, "predictions": {}}


@contextlib.contextmanager
def change() -> Iterator[Record]:
    """Read the file, let the `with` change it, write it; nobody else does meanwhile.

    Where nothing can be written it says so and lets the lesson go on.
    """
    try:
        make(folder())
        lock = (folder() / ".lock").open("w")
    except OSError as error:
        print(f"your progress is not kept: {error}")
        yield load()
        return
    with lock:
        # A share of another machine may know no locks: then the last writer wins.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        record = load()
        yield record
        write(folder() / FILE, json.dumps(record, indent=1, sort_keys=True) + "\n")


def exercise(record: Record, name: str) -> Record:
    """An exercise's entry, made when it is not there."""
    entry: Record = record["exercises"].setdefault(name, {})
    return entry


def note(name: str, **fields: Any) -> None:
    """Set fields of an exercise's entry, and the time."""
    with change() as record:
        exercise(record, name).update(fields, when=now())


def count(name: str, field: str) -> int:
    """Add one to a number of an exercise's entry; return what it is now."""
    with change() as record:
        entry = exercise(record, name)
        entry[field] = int(entry.get(field, 0)) + 1
        return int(entry[field])


def now() -> str:
    """The present time as it is written into the file."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def make(path: Path) -> None:
    """Make the folder `my`, a package that belongs to whom the notebooks belong."""
    if path.is_dir() and (path / "__init__.py").exists():
        return
    path.mkdir(parents=True, exist_ok=True)
    _give(path)
    write(path / "__init__.py", '"""What you solved, in your own words: `from my import ...` in a notebook."""\n')


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
        part.chmod(0o644)  # mkstemp lets the owner alone read
        _give(part)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _give(path: Path) -> None:
    """JupyterLab may be root here: the files go to the owner of the folder that they are in."""
    with contextlib.suppress(OSError):
        above = path.parent.stat()
        if os.geteuid() == 0 and path.stat().st_uid != above.st_uid:
            os.chown(path, above.st_uid, above.st_gid)


def _aside(file: Path) -> str:
    for number in range(1, 1000):
        place = file.with_name(f"{file.name}.broken-{number}")
        if not place.exists():
            with contextlib.suppress(OSError):
                file.rename(place)
            return place.name
    return "nothing: there are a thousand of them"
