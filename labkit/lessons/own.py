"""Top floor: what a learner solved, as a package of their own.

Owns: writing a solved function into `my/` so that it can be imported (with its helpers,
the imports and the constants that it uses), and handing it to later notebooks: theirs
where it is there and works, labkit's where it is missing or broken, and saying which.

Read: ast and builtins in Python's library.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from labkit.errors import LabError
from labkit.lessons import progress, source
from labkit.lessons.task import Task, find, function_of

PLAIN = (int, float, str, bytes, bool, type(None), tuple, frozenset)
Kept = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def path(task: Task) -> Path:
    """The file that holds, or would hold, the learner's own function."""
    return progress.folder() / f"{task.module}.py"


def save(task: Task, function: Callable[..., Any]) -> Path:
    """Write the solved function's module; what it replaces is kept in my/old.

    Raises LabError for a function that has no text of its own; OSError where nothing can be written.
    """
    text = module(task, function)
    file = path(task)
    progress.make(file.parent)
    if file.exists() and file.read_text() != text:
        set_aside(task)
    progress.write(file, text)
    return file


def set_aside(task: Task) -> Path | None:
    """Move the learner's module to my/old under a name that is free; None when there is none."""
    file = path(task)
    if not file.exists():
        return None
    old = file.parent / "old"
    old.mkdir(exist_ok=True)
    target = next(place for number in range(1, 10**6) if not (place := old / f"{task.module}_{number}.py").exists())
    file.rename(target)
    return target


def module(task: Task, function: Callable[..., Any]) -> str:
    """The text of a module that defines `function` and all that it needs of its notebook."""
    function = inspect.unwrap(function)
    name = getattr(function, "__name__", task.function)
    tree = source.parsed(source.cell(function)) or ast.Module([], [])
    kept = [node for node in tree.body if isinstance(node, Kept)]
    if not any(isinstance(node, ast.FunctionDef) and node.name == name for node in kept):
        alone = source.parsed(source.text(function))
        if not name.isidentifier() or alone is None or not (found := source.definition(alone, name)):
            raise LabError(
                f"{task.function}() is right, and cannot be kept",
                why="it has no text of its own: a lambda, a partial, or a function made by another",
                next=f"write it as `def {task.function}(...)` in a cell, and check again",
            )
        kept.append(found)
    text = source.cell(function)
    pieces = [(ast.get_source_segment(text, node) if node in tree.body else None) or ast.unparse(node)
              for node in _decorated(kept)]  # fmt: skip
    skeleton = source.parsed(task.text("skeleton"))
    imports = [ast.unparse(node) for node in (skeleton.body if skeleton else [])
               if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
    elsewhere = _elsewhere("\n\n".join([*imports, *pieces]), function.__globals__)
    head = f'"""{task.title}: solved by you. labkit.lessons.mine("{task.name}") takes it from here."""'
    future = [line for line in imports if "__future__" in line]
    rest = [line for line in dict.fromkeys([*imports, *elsewhere]) if line not in [*future, *pieces]]
    if name != task.function:
        pieces.append(f"{task.function} = {name}")
    return "\n\n".join([head, *future, "\n".join(rest), *pieces]).replace("\n\n\n\n", "\n\n") + "\n"


def _decorated(nodes: list[Any]) -> Iterator[Any]:
    """A node's own text begins after its decorators; move its beginning up."""
    for node in nodes:
        if getattr(node, "decorator_list", None):
            node.lineno = node.decorator_list[0].lineno
            node.col_offset = 0
        yield node


def _elsewhere(text: str, names: dict[str, Any], seen: frozenset[str] = frozenset()) -> list[str]:
    """Lines that bring what a module uses and another cell has: imports, plain constants, helpers."""
    lines: list[str] = []
    for name in sorted(_missing(text) - seen):
        if name not in names:
            continue
        value, home = names[name], getattr(names[name], "__module__", None)
        called = getattr(value, "__name__", "")
        if isinstance(value, ModuleType):
            lines.append(f"import {value.__name__}" + (f" as {name}" if value.__name__ != name else ""))
        elif home not in (None, "__main__") and not str(home).startswith("exercise:") and called:
            lines.append(f"from {home} import {called}" + (f" as {name}" if called != name else ""))
        elif isinstance(value, PLAIN):
            lines.append(f"{name} = {value!r}")
        elif helper := (source.text(value) if inspect.isfunction(value) else "") or source.statement(name):
            lines += [*_elsewhere(helper, names, seen | {name}), helper]
    return list(dict.fromkeys(lines))


def lacking(text: str) -> list[str]:
    """What a kept module uses and does not have, because it could not be written down."""
    return sorted(_missing(text))


def _missing(text: str) -> set[str]:
    """The names that a module reads and never defines."""
    nodes = list(ast.walk(ast.parse(text)))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(one.asname or one.name).split(".")[0] for one in node.names}
    return read - made - set(dir(builtins)) - {"__name__", "__file__"}


def mine(name: str) -> Callable[..., Any]:
    """The learner's own function of an exercise, or labkit's where there is none; prints whose it is.

    Raises NotFound for an exercise that does not exist.
    """
    task = find(name)
    function, words = whose(task)
    print(f"{task.name}: {words}")
    return function


def whose(task: Task) -> tuple[Callable[..., Any], str]:
    """The function to go on with, and whose it is, in words."""
    file = path(task)
    if not file.exists():
        return task.answer("reference"), "labkit's (not solved yet)"
    try:
        return function_of(file, task.function), "yours"
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        return task.answer("reference"), f"labkit's ({progress.shown(file)} does not work: {why})"
