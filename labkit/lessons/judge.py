"""Top floor: one answer to one exercise, judged.

Owns: the order of the questions (was anything written? what does the check see?) and the
words for an answer that raised, never returned or ended its process.

Read: labkit/lessons/ground.py for what a check may do, labkit/lessons/child.py for Hung and Died.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import re
from collections.abc import Callable
from typing import Any

from labkit.errors import LabError
from labkit.lessons import remote, source
from labkit.lessons.endings import Died, Hung
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import BROKEN, NOT_ATTEMPTED, RIGHT, WRONG, Outcome, Wrong
from labkit.lessons.task import Task

TRAVELLED = "<dynamic-code>"  # what cloudpickle calls every file
FRAME = r'^ *File "([^"]*)", line ([0-9]+), in (\S+)\n? *(.*)$'  # in a traceback: file, line, function, words
PRINTED = 1000  # characters of what the learner's function printed that are shown


def judge(task: Task, function: object) -> Outcome:
    """Try `function` and say what became of it; whatever it does, nothing of it is left."""
    if function is None or function is ...:
        return Outcome(NOT_ATTEMPTED, f"{task.function}() is not defined yet: run the cell above")
    if not callable(function):
        return Outcome(WRONG, f"check({task.function}) wants the function itself, without brackets; "
                              f"this is {_short(repr(function))}")  # fmt: skip
    if source.untouched(function, task.text("skeleton"), task.function):
        return Outcome(NOT_ATTEMPTED, f"to write: {task.write}")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        state, message = tried(task, function)
    return Outcome(state, message, _short(printed.getvalue(), PRINTED))


def tried(task: Task, function: Callable[..., Any]) -> tuple[str, str]:
    """(state, message): what the check alone says, whether anything was written or not."""
    try:
        with Ground(task.name, task.fence, task.controllers) as lab:
            task.check()(function, lab)
    except Wrong as seen:
        return WRONG, str(seen)
    except BaseException as error:
        if getattr(error, "theirs", False):
            return WRONG, words(task, error, function)
        if not isinstance(error, Exception):  # the learner interrupted the cell
            raise
        where = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        return BROKEN, f"the check itself could not be made, which is no fault of yours: {where}"
    return RIGHT, ""


def words(task: Task, error: BaseException, function: Callable[..., Any]) -> str:
    """What an exception of the learner's function says, with the line that raised it and what the kernel meant."""
    if isinstance(error, Hung | Died) and error.stage == getattr(function, "__name__", ""):
        # In the words of somebody who has written a function, and has not seen the child that ran it.
        what = f"did not end within {error.limit:g} s" if isinstance(error, Hung) else "did not return"
        again = "all that it started was ended; mend it, and check again"
        return str(LabError(f"{task.function}() {what}", why=error.why, next=again))
    if isinstance(error, LabError):  # these say all that is known
        return str(error)
    lines = [f"{task.function}() raised {type(error).__name__}: {error}"]
    if place := _line(error, function):
        lines.append(f"  in the line: {place}")
    causes = [note for note in getattr(error, "__notes__", []) if note.startswith("  why:")]
    return "\n".join(lines + causes[:1])


def _line(error: BaseException, function: Callable[..., Any]) -> str:
    """The last line of the learner's own in the traceback that came back as a note."""
    notes = "\n".join(getattr(error, "__notes__", []))
    file, tree = source.file(function), source.parsed(source.cell(function))
    found = [
        words if place == remote.CELL else linecache.getline(file, int(number)).strip()
        for place, number, name, words in re.findall(FRAME, notes, re.MULTILINE)
        # A function that travelled by value may have lost the name of its file.
        if place in (file, remote.CELL) or (place == TRAVELLED and tree and source.definition(tree, name))
    ]
    return found[-1] if found else ""


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"
