"""Top floor: every exercise against its own skeleton, reference and wrong answers.

Owns: which outcome each of them must have, and the table that says so.  A check that
lets a wrong answer pass, or blames two different mistakes in the same words, is found here.

Read: CONTRIBUTING.md, "Adding an exercise".
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from labkit.lessons import source
from labkit.lessons.judge import judge, tried
from labkit.lessons.outcome import NOT_ATTEMPTED, RIGHT, WRONG, Outcome
from labkit.lessons.task import Task
from labkit.observe import census

FEWEST = 3  # wrong answers that an exercise must know
# What a reference may import of labkit: the rest is what learners are to write.
ALLOWED = {"labkit.kernel.syscalls", "labkit.kernel.constants"}


class Row(NamedTuple):
    """One answer's outcome; `unexpected` says what is wrong with it, and is empty when nothing is."""

    task: str
    answer: str
    state: str
    message: str
    unexpected: str = ""


def rows(task: Task, *, leftovers: bool = False) -> Iterator[Row]:
    """Judge the skeleton, the reference and each wrong answer of an exercise.

    leftovers -- also take the machine's census before and after each; a difference is unexpected
    """
    yield _row(task, "skeleton", NOT_ATTEMPTED, leftovers)
    yield _row(task, "reference", RIGHT, leftovers)
    said: dict[str, str] = {}
    for name in task.wrong():
        row = _row(task, f"wrong_{name}", WRONG, leftovers)
        shape = promised(task, name)
        if not row.unexpected and shape in said:
            row = row._replace(unexpected=f"promises the same words as {said[shape]}")
        said[shape] = name
        yield row
    for problem in problems(task):
        yield Row(task.name, "the files", "", "", problem)


def _row(task: Task, answer: str, expected: str, leftovers: bool) -> Row:
    before = census.take() if leftovers else {}
    try:
        outcome = judge(task, task.answer(answer))
    except Exception as error:  # the answer's file itself
        outcome = Outcome("broken", f"{answer}.py: {type(error).__name__}: {error}")
    unexpected = "" if outcome.state == expected else f"expected: {expected}"
    if not unexpected and expected == NOT_ATTEMPTED:
        # It equals itself; what the check makes of a function that does nothing must be seen too.
        state, message = tried(task, task.answer(answer))
        unexpected = "" if state == WRONG else f"as an attempt it is {state}, and not wrong: {message}".rstrip(": ")
    if not unexpected and expected == WRONG and not (shape := promised(task, answer.removeprefix("wrong_"))):
        unexpected = "its file's docstring does not say which words the message has"
    elif not unexpected and expected == WRONG and shape not in outcome.message:
        unexpected = f"the message lacks: {shape}"
    if leftovers and not unexpected and (left := census.difference(before, census.take())):
        unexpected = "left behind: " + "; ".join(left)
    return Row(task.name, answer, outcome.state, outcome.message, unexpected)


def promised(task: Task, name: str) -> str:
    """The words that the check's message for a wrong answer must hold: the first line of its docstring."""
    tree = source.parsed(task.text(f"wrong_{name}"))
    return ((ast.get_docstring(tree) if tree else None) or "").partition("\n")[0]


def problems(task: Task) -> Iterator[str]:
    """What is wrong with an exercise's files, beside its outcomes."""
    if len(task.wrong()) < FEWEST:
        yield f"{len(task.wrong())} wrong answers, {FEWEST} are the least"
    if not task.hints:
        yield "no hints"
    mark = f"# exercise: {task.name}"
    for file in ("skeleton", "reference"):
        if not task.text(file).startswith(mark + "\n"):
            yield f"{file}.py does not begin with the line {mark}"
    tree = source.parsed(task.text("reference"))
    yield from (f"reference.py imports {name}" for name in foreign(tree) if tree)


def foreign(tree: ast.AST | None) -> list[str]:
    """What a reference imports of labkit beside the system calls and their constants."""
    found: list[str] = []
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            deeper = base == "labkit.kernel"
            found += [f"{base}.{name.name}" for name in node.names] if deeper else [base]
    return [name for name in found if name.split(".")[0] in ("labkit", "") and name not in ALLOWED]


def table(found: list[Row], width: int = 110) -> str:
    """The rows as text: exercise, answer, outcome, and the message below."""
    lines = []
    for row in found:
        mark = "UNEXPECTED" if row.unexpected else "ok"
        lines.append(f"{mark:<11}{row.task:<16}{row.answer:<30}{row.state}")
        for text in (row.message, row.unexpected):
            for line in text.splitlines():
                lines += textwrap.wrap(line, width, initial_indent=" " * 13, subsequent_indent=" " * 15,
                                       break_on_hyphens=False)  # fmt: skip
    bad = sum(bool(row.unexpected) for row in found)
    lines.append(f"{len({row.task for row in found})} exercises, {len(found)} answers, {bad} unexpected")
    return "\n".join(lines)
