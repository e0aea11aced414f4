"""Top floor: a learner's function on its way into the child.

Owns: what is sent whole, because the child could not import it (a cell's functions, a
learner's own modules), and what is sent by name (labkit, Python, installed packages).

Read: cloudpickle's README, "Overriding pickle's serialization mechanism for importable constructs".
"""

from __future__ import annotations

import functools
import io
import linecache
import os
import sys
import sysconfig
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

from labkit.errors import BadInput, LabError, NotFound

INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def dumps(value: object) -> bytes:
    """cloudpickle.dumps, by which functions keep the name of the file or the cell that they stand in.

    cloudpickle itself drops it, and a traceback or a dump of the stack would show no line.
    """
    file = io.BytesIO()
    _pickler()(file).dump(value)
    return file.getvalue()


@functools.cache
def _pickler() -> Any:
    import cloudpickle  # type: ignore[import-untyped]

    plain = cloudpickle.Pickler.dispatch_table

    def with_file(code: CodeType) -> Any:
        make, parts = plain[CodeType](code)
        return _named, (make, parts, code.co_filename)

    # Read when a pickler is made: it must be the class's.
    return type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": ChainMap({CodeType: with_file}, plain)})


def _named(make: Callable[..., CodeType], parts: tuple[Any, ...], file: str) -> CodeType:
    return make(*parts).replace(co_filename=file)


def pack(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """The function and its arguments as bytes.

    Raises BadInput for what cannot be pickled: open files, locks, widgets, a running generator.
    """
    try:
        with _whole(sys.modules.get(getattr(function, "__module__", "") or "")):
            return dumps((function, arguments, _cell(function)))
    except ModuleNotFoundError as error:
        raise NotFound(
            f"cannot send a function to a child: {error.name} is missing", next=f"pip install {error.name}"
        ) from error
    except LabError:
        raise
    except Exception as error:
        name = getattr(function, "__name__", repr(function))
        raise BadInput(
            f"{name} cannot be sent into the child",
            why=f"{error}: it, its arguments or a global name that it uses hold something of this process alone",
            next="give it plain values as arguments, and let it open what it needs itself",
        ) from error


def home(function: Callable[..., Any]) -> str:
    """The file or the cell that a function stands in; "" for one that is not Python's."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(getattr(function, "__code__", None), "co_filename", ""))


def _cell(function: Callable[..., Any]) -> dict[str, list[str]]:
    """{name: lines} of the cell that the function stands in, for tracebacks that are printed in the child."""
    name = home(function)
    lines = [] if not name or os.path.exists(name) else linecache.getlines(name)
    return {name: lines} if lines else {}


@contextmanager
def _whole(module: ModuleType | None) -> Iterator[None]:
    """Send what is defined in `module` whole, unless it is labkit's, Python's or installed."""
    import cloudpickle

    file = getattr(module, "__file__", None)
    if module is None or not file or module.__name__.partition(".")[0] == "labkit" or file.startswith(INSTALLED):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)
