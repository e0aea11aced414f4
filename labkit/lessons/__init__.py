"""Top floor: labkit.lessons: what a notebook says to its reader, and asks back.

The names that a notebook uses come from here; each one's module is imported when it is
first asked for, so that the stage child does not pay for the exercises.
"""

from __future__ import annotations

import importlib
from typing import Any

# name: the module of this package that has it
NAMES = {
    "Child": "child",
    "in_child": "child",
    "Died": "endings",
    "Hung": "endings",
    "exercise": "exercises",
    "mine": "own",
    "predict": "predictions",
    "measured": "predictions",
    "beliefs": "predictions",
    "scratch": "folder",
}

__all__ = ["Child", "Died", "Hung", "beliefs", "exercise", "in_child", "measured", "mine", "predict", "scratch"]


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{NAMES[name]}"), name)


def load_ipython_extension(shell: Any) -> None:
    """%load_ext labkit.lessons: the magics."""
    from labkit.lessons import magic

    magic.load(shell)
