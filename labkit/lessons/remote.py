"""Top floor: values and exceptions on their way from the child to the notebook.

Owns: what travels as it is, what travels as its text because it cannot be pickled, and an
exception's way: the object itself, and beside it the places it came through, whose source
lines are looked up in the notebook, where the cells are known.

Read: the pickle module; traceback.StackSummary; PEP 678 on notes.
"""

from __future__ import annotations

import linecache
import os
import pickle
import traceback
from types import TracebackType
from typing import Any, NamedTuple

from labkit.errors import LabError
from labkit.lessons import travel

CELL = "the cell"  # for the name of a cell, which is another one in each run


class Repr(str):
    """The repr of a value that could not travel; `why` says what was in the way."""

    why = ""


class Frame(NamedTuple):
    """One line of a traceback, without its source."""

    file: str
    line: int
    name: str


class Link(NamedTuple):
    """One exception of a chain; `joint` is what stands between it and the one before."""

    joint: str
    frames: list[Frame]
    words: str


class Thrown(NamedTuple):
    """An exception as it travels."""

    pickled: bytes | None  # None: its type cannot travel
    kind: str
    words: str
    chain: list[Link]


class Foreign(LabError):
    """An exception in the child whose type cannot be made again in the notebook."""


def pack(value: object) -> bytes:
    """The value, or its repr where it cannot be pickled and loaded again."""
    try:
        return travel.dumps(value)
    except Exception as error:
        text = Repr(repr(value))
        text.why = f"{type(error).__name__}: {error}"
        return pickle.dumps((Repr, str(text), text.why))


def unpack(parcel: bytes) -> Any:
    """What `pack` packed."""
    value = pickle.loads(parcel)
    if isinstance(value, tuple) and value[:1] == (Repr,):
        text = Repr(value[1])
        text.why = value[2]
        return text
    return value


def throw(error: BaseException, own: str) -> Thrown:
    """Make an exception ready to travel; frames of the file `own` are left out."""
    try:
        pickled = travel.dumps(error)
        pickle.loads(pickled)  # some can be written and not read
    except Exception:
        pickled = None
    return Thrown(pickled, type(error).__name__, _words(error), _chain(error, own))


def catch(thrown: Thrown, where: str) -> BaseException:
    """The exception again, with the child's traceback as a note."""
    error: BaseException | None = None
    if thrown.pickled is not None:
        try:
            error = pickle.loads(thrown.pickled)
        except Exception:
            error = None
    if error is None:
        error = Foreign(thrown.words, why=f"{thrown.kind} is a type that only the child knows")
    error.add_note(f"{where}\n{text(thrown.chain)}".rstrip())
    return error


def text(chain: list[Link]) -> str:
    """A chain as Python prints it, source lines from this process's cells and files."""
    parts = []
    for link in chain:
        if link.joint:
            parts.append(f"\n{link.joint}\n")
        parts.append("Traceback (most recent call last), in the child:")
        frames = [
            traceback.FrameSummary(place(frame.file), frame.line, frame.name, line=source(frame.file, frame.line))
            for frame in link.frames
        ]
        parts += [line.rstrip("\n") for line in traceback.StackSummary.from_list(frames).format()]
        parts.append(link.words)
    return "\n".join(parts)


def place(file: str) -> str:
    """A file's name, or CELL."""
    return CELL if linecache.getline(file, 1) and not os.path.exists(file) else file


def source(file: str, line: int) -> str:
    """One line of a file or of a cell, without its indent; empty when it is not known."""
    return linecache.getline(file, line).strip()


def _words(error: BaseException, notes: bool = True) -> str:
    told = traceback.TracebackException(type(error), error, None)
    if not notes:
        told.__notes__ = []
    return "".join(told.format_exception_only()).rstrip()


def _chain(error: BaseException, own: str) -> list[Link]:
    links: list[Link] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        # The one that travels carries its notes itself: the notebook shows them beside this text.
        words = _words(current) if links else _words(current, notes=False)
        links.append(Link("", _frames(current.__traceback__, own), words))
        if current.__cause__ is not None:
            current, joint = current.__cause__, "The above exception was the direct cause of the following exception:"
        elif current.__context__ is not None and not current.__suppress_context__:
            current, joint = current.__context__, "During handling of the above exception, another exception occurred:"
        else:
            break
        links[-1] = links[-1]._replace(joint=joint)
    return links[::-1]


def _frames(trace: TracebackType | None, own: str) -> list[Frame]:
    return [
        Frame(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(trace)
        if frame.f_code.co_filename != own
    ]
