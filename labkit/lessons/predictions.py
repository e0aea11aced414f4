"""Top floor: predictions: an answer that is sealed before the cell runs, and the measurement beside it.

Owns: the seal (the first real answer counts, a later one is told so), the comparison
with what was measured, and the list of beliefs at a notebook's end.

Read: labkit/lessons/progress.py for where they are kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from labkit.errors import BadInput
from labkit.lessons import progress
from labkit.lessons.progress import Record

NOT_GIVEN = "not predicted"
BARE_NUMBER = re.compile(r"\s*[-+]?[\d.]+\s*")
# The predictions of this process, in the order in which its notebook asked: beliefs() lists them.
_asked: dict[str, Record] = {}


def predict(name: str, question: str, choices: Sequence[Any] | None = None, mine: Any = ...) -> None:
    """Ask; seal `mine` if it is the first real answer.

    mine -- `...` for none yet; one of `choices`, or its number as printed, from 1 on

    Prints the question and what is sealed. Raises BadInput for a choice that is a bare number: nobody could tell
    whether mine=2 means that choice or the second one.
    """
    if numbers := [str(one) for one in choices or [] if BARE_NUMBER.fullmatch(str(one))]:
        raise BadInput(
            f"the choice {numbers[0]!r} of the prediction {name!r} is a number, and an answer may be a choice's number",
            next="give it a word, such as '4 layers', here and in measured(...)",
        )
    print(question)
    for number, choice in enumerate(choices or [], 1):
        print(f"  {number}. {choice}")
    _asked[name] = {"question": question, "choices": [str(one) for one in choices or []]}
    with progress.change() as record:
        entry = record["predictions"].setdefault(name, {})
        entry.update(_asked[name])
        print(_sealed(entry, mine))


def _sealed(entry: Record, mine: Any) -> str:
    before = entry.get("said")
    if mine is ...:
        return f"sealed: you said {before}" if before is not None else "your answer: put it in place of `...`"
    answer = _answer(mine, entry["choices"])
    if answer is None:
        return f"not sealed: {mine!r} is none of the choices"
    if before is None:
        entry.update(said=answer, when=progress.now(), late="measured" in entry)
        late = " (after the measurement: it does not count as a prediction)" if entry["late"] else ""
        return f"sealed: you said {answer}{late}"
    return f"sealed: you said {before}" + ("" if before == answer else f"; the first answer counts, not {answer}")


def _answer(mine: Any, choices: list[str]) -> str | None:
    if not choices or str(mine) in choices:
        return str(mine)
    if isinstance(mine, int) and not isinstance(mine, bool) and 1 <= mine <= len(choices):
        return choices[mine - 1]
    return None


def measured(name: str, value: Any) -> None:
    """Print the sealed answer and the measured value beside each other.

    Raises BadInput when nothing of this name was asked.
    """
    with progress.change() as record:
        entry = record["predictions"].get(name)
        if entry is None or "question" not in entry:
            raise BadInput(
                f"nothing was predicted under the name {name!r}", next="run the cell with predict(...) first"
            )
        entry["measured"] = str(value)
        _asked.setdefault(name, {"question": entry["question"], "choices": entry["choices"]})
        said = entry.get("said")
        print(f"you said:  {NOT_GIVEN if said is None else said}")
        print(f"measured:  {value}")
        if said is not None:
            print("as you thought" if said == entry["measured"] else "not as you thought")


def beliefs(notebook: str) -> None:
    """At a notebook's end: what was believed, what was measured, and which beliefs were wrong."""
    with progress.change() as record:
        kept = record["predictions"]
        for name in _asked:
            kept.setdefault(name, dict(_asked[name]))["notebook"] = notebook
        names = list(_asked) + [name for name in kept if kept[name].get("notebook") == notebook and name not in _asked]
        entries = [kept[name] for name in names]
    print("\n".join(table(entries)))


def table(entries: list[Record]) -> list[str]:
    """The beliefs of some predictions as lines of text."""
    lines, right, wrong = [], 0, 0
    for entry in entries:
        said, value = entry.get("said"), entry.get("measured")
        settled = said is not None and value is not None and not entry.get("late")
        right += settled and said == value
        wrong += settled and said != value
        mark = " " if not settled else "=" if said == value else "!"
        lines.append(f"{mark} {entry['question']}")
        lines.append(
            f"    believed: {NOT_GIVEN if said is None else said}{' (afterwards)' if entry.get('late') else ''}"
        )
        lines.append(f"    measured: {'not yet' if value is None else value}")
    if not entries:
        return ["nothing was asked yet"]
    open_ = len(entries) - right - wrong
    return [*lines, "", f"{right} held, {wrong} did not, {open_} not predicted or not measured"]
