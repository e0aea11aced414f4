"""The house's rules as functions over a module's text, so that tests can try them on made-up modules too."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Which part of labkit may import which, beside itself.  A part that is not here is refused.
GROUND = {"errors", "lean", "leanctypes", "leanjson", "paths"}
KERNEL = GROUND | {"kernel"}
MIDDLE = KERNEL | {"image", "storage", "network"}
RUNTIME = MIDDLE | {"observe", "runtime"}
MAY_IMPORT = {
    "": set(),
    "errors": {"lean"},
    "lean": set(),
    "leanctypes": {"lean"},
    "leanjson": {"lean"},
    "paths": set(),
    "kernel": GROUND,
    "image": KERNEL,
    "storage": KERNEL,
    "network": KERNEL,
    "observe": KERNEL,
    "draw": {"observe"},  # its plain types: labkit/observe/model.py
    "runtime": RUNTIME | {""},  # its version
    "engine": RUNTIME,
    "lessons": RUNTIME | {"engine", "draw"},
    "lab": RUNTIME | {"engine", "draw", "lessons"},
    # The table of verbs names modules as text, and imports the one that is asked for.
    "cli": GROUND | {""},
    "__main__": {"cli"},
}
# How a module's first line begins, for each part.
FLOOR = {
    "": ("labkit: ",),
    "errors": ("Ground floor: ",),
    "lean": ("Ground floor: ",),
    "leanctypes": ("Ground floor: ",),
    "leanjson": ("Ground floor: ",),
    "paths": ("Ground floor: ",),
    "kernel": ("Floor 1: ",),
    "image": ("Floor 2: ",),
    "storage": ("Floor 2: ",),
    "network": ("Floor 2: ",),
    "runtime": ("Floor 3: ",),
    "engine": ("Floor 4: ",),
    "observe": ("Beside the floors: ", "Reading floor: "),
    "draw": ("Beside the floors: ", "Drawing floor: "),
    "lessons": ("Top floor: ",),
    "lab": ("Top floor: ", "The top floor: "),
    "cli": ("Top of the house: ",),
    "__main__": ("`python -m labkit`",),
}


def part(module: str) -> str:
    """The part of the house that a dotted module name belongs to; "" is labkit/__init__.py itself."""
    return [*module.split("."), ""][1]


def imported(module: str, text: str, *, package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of labkit in a module's text, in functions and in conditions too."""
    inside = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] == "labkit")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # from . import x, from ..kernel import x
                above = inside[: len(inside) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base == "labkit":
                # `from labkit import paths` names a module; `from labkit import __version__` the package itself.
                for name in node.names:
                    yield node.lineno, f"labkit.{name.name}" if name.name in MAY_IMPORT else "labkit"
            elif base.startswith("labkit."):
                yield node.lineno, base
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            first = node.args[0] if node.args else None
            if (called in ("import_module", "__import__") and isinstance(first, ast.Constant)
                    and str(first.value).split(".")[0] == "labkit"):  # fmt: skip
                yield node.lineno, str(first.value)


def upward(module: str, text: str, *, package: bool = False) -> list[str]:
    """The imports of a module that its floor does not allow, each as "line: what"."""
    own = part(module)
    if own not in MAY_IMPORT:
        return [f"{module} belongs to no floor of the table in tests/house_rules.py"]
    allowed = MAY_IMPORT[own] | {own}
    return [f"{module}:{line} imports {name}" for line, name in imported(module, text, package=package)
            if part(name) not in allowed]  # fmt: skip


def headless(module: str, text: str, *, package: bool = False) -> list[str]:
    """What a module's docstring lacks: its floor, what it owns, what to read."""
    document = ast.get_docstring(ast.parse(text)) or ""
    lacking = [] if document.startswith(FLOOR.get(part(module), ())) else ["its floor"]
    if not package:
        lines = document.splitlines()
        lacking += [word for word in ("Owns:", "Read:") if not any(line.startswith(word) for line in lines)]
    return [f"{module} does not say {what}" for what in lacking]
