"""Top floor: the text of a learner's function, and whether anything was written into it.

Owns: finding the cell that a function came from, and comparing a function's body with the skeleton's.

Read: inspect and linecache in Python's library (IPython puts each cell into linecache).
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable
from typing import Any


def shell() -> Any:
    """IPython's shell, when this process has one; else None."""
    if "IPython" not in sys.modules:
        return None
    return sys.modules["IPython"].get_ipython()


def file(function: Callable[..., Any]) -> str:
    """The file that a function was compiled from; a cell has one in name only."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else ""


def text(function: Callable[..., Any]) -> str:
    """The function's own text; empty when it is nowhere to be found."""
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):
        pass
    name = getattr(function, "__name__", "")
    tree = parsed(cell(function))
    found = definition(tree, name) if tree else None
    return ast.unparse(found) if found else ""


def cell(function: Callable[..., Any]) -> str:
    """The whole cell, or file, in which a function was defined; empty when it is nowhere to be found."""
    if lines := linecache.getlines(file(function)):
        return "".join(lines)
    name = getattr(function, "__name__", "")
    return next((old for old in _cells() if (tree := parsed(old)) and definition(tree, name)), "")


def statement(name: str) -> str:
    """The last statement at the top of a cell that was run and gave `name` its value; empty when there is none."""
    for old in _cells():
        tree = parsed(old)
        for node in reversed(tree.body if tree else []):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            named = {target.id for target in targets if isinstance(target, ast.Name)}
            if name in named or (isinstance(node, ast.ClassDef) and node.name == name):
                return ast.get_source_segment(old, node) or ""
    return ""


def _cells() -> list[str]:
    """The cells that were run in this notebook, the last one first."""
    here = shell()
    return list(reversed(here.user_ns.get("In", []))) if here else []


def parsed(code: str) -> ast.Module | None:
    """The syntax tree of a cell; None for magics and mistakes."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError):
        return None


def definition(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The last function called `name` at the top of a module."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[-1] if found else None


def body(code: str, name: str) -> list[str] | None:
    """What a function does, as trees without places: its docstring and comments do not count."""
    tree = parsed(code)
    found = definition(tree, name) if tree else None
    if found is None:
        return None
    statements = found.body[1:] if ast.get_docstring(found) is not None else found.body
    return [ast.dump(node) for node in statements]


NOTHING = [ast.dump(node) for node in ast.parse("...\npass").body]


def untouched(function: Callable[..., Any], skeleton: str, name: str) -> bool:
    """Whether a function does what the skeleton's does, or nothing at all."""
    said = body(text(function), getattr(function, "__name__", name))
    if said is None:  # no text to be had: then it is no skeleton's
        return False
    return said == body(skeleton, name) or all(one in NOTHING for one in said)
