"""Top floor: an exercise as its author wrote it: the files of one folder.

Owns: finding the folders below labkit/lessons/tasks, reading task.toml, and running a
file of such a folder as a module of its own.

A file is run under a name that cannot be imported: cloudpickle then sends its functions
by value, as it does with those of a notebook's cell, and a child needs no copy.

Read: CONTRIBUTING.md, "Adding an exercise"; linecache in Python's library.
"""

from __future__ import annotations

import linecache
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from labkit.errors import LabError, NotFound

TASKS = Path(__file__).resolve().parent / "tasks"
# key of task.toml: (type, whether it must be there)
KEYS: dict[str, tuple[type, bool]] = {
    "name": (str, True),
    "notebook": (str, True),
    "title": (str, True),
    "minutes": (int, True),
    "core": (bool, True),
    "function": (str, True),
    "write": (str, True),
    "hints": (list, True),
    "order": (int, False),
    "fence": (list, False),
    "controllers": (list, False),
    "instructor": (str, False),
}
FENCE = ("mnt", "uts", "ipc")


class Task(NamedTuple):
    """One exercise; `order` is its place in its notebook, `minutes` what a learner takes."""

    folder: Path
    name: str
    notebook: str
    title: str
    minutes: int
    core: bool
    function: str
    write: str
    hints: list[str]
    order: int = 100
    fence: tuple[str, ...] = FENCE
    controllers: tuple[str, ...] = ()  # of cgroup v2, that an attempt needs
    instructor: str = ""

    @property
    def module(self) -> str:
        """The exercise's name as Python can import it: host-name, host_name."""
        return self.name.replace("-", "_")

    @property
    def kind(self) -> str:
        return "core" if self.core else "optional"

    def text(self, file: str) -> str:
        """A file of the folder; `skeleton` is the starter cell, `reference` the solution."""
        return (self.folder / f"{file}.py").read_text()

    def wrong(self) -> list[str]:
        """The names of the wrong answers that come with it."""
        return sorted(path.stem.removeprefix("wrong_") for path in self.folder.glob("wrong_*.py"))

    def answer(self, file: str) -> Callable[..., Any]:
        """The exercise's function as `file` defines it."""
        return function_of(self.folder / f"{file}.py", self.function)

    def check(self) -> Callable[..., None]:
        """check(function, lab) of check.py."""
        return function_of(self.folder / "check.py", "check")


def load(folder: Path) -> Task:
    """Read one folder.

    Raises LabError that says which key is wrong.
    """
    file = folder / "task.toml"
    try:
        found = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"cannot read the exercise in {folder}", why=str(error)) from error
    strange = sorted(set(found) - set(KEYS))
    missing = [key for key, (_, needed) in KEYS.items() if needed and key not in found]
    mistyped = [f"{key} is no {KEYS[key][0].__name__}" for key in found if key in KEYS and type(found[key]) is not KEYS[key][0]]  # fmt: skip  # noqa: E501
    said = [f"it lacks {key}" for key in missing] + [f"{key} is no key" for key in strange] + mistyped
    if not said and found["name"] != folder.name:
        said = [f"its name is {found['name']}, its folder {folder.name}"]
    if said:
        raise LabError(f"cannot read {file}", why="; ".join(said), next='CONTRIBUTING.md, "Adding an exercise"')
    for key in {"fence", "controllers"} & set(found):
        found[key] = tuple(found[key])
    return Task(folder, **found)


def every(root: Path | None = None) -> list[Task]:
    """All exercises, in the order in which a learner meets them."""
    found = [load(file.parent) for file in (root or TASKS).glob("*/task.toml")]
    return sorted(found, key=lambda task: (task.notebook, task.order, task.name))


def find(name: str, root: Path | None = None) -> Task:
    """The exercise called `name`.

    Raises NotFound.
    """
    folder = (root or TASKS) / name
    if not name or Path(name).name != name or not (folder / "task.toml").exists():
        raise NotFound(f"there is no exercise {name!r}", next="labkit exercises list")
    return load(folder)


def run(path: Path, into: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a file as a module that cannot be imported by name; its names."""
    names = into if into is not None else {"__name__": f"exercise:{path.parent.name}/{path.stem}"}
    names["__file__"] = str(path)
    linecache.checkcache(str(path))
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names


def function_of(path: Path, name: str) -> Callable[..., Any]:
    """The function `name` that a file defines.

    Raises LabError when it defines none; whatever the file raises.
    """
    found = run(path).get(name)
    if not callable(found):
        raise LabError(f"{path} defines no function {name}()")
    return found  # type: ignore[no-any-return]
