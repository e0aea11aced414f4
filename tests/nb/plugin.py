"""pytest plugin: strict nbval whose comparison keeps relations (see relabel.py).

Every code cell must have been run before it was committed, and runs now with the same
outputs.  Used as `pytest -p tests.nb.plugin --relational notebooks/`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from tests.nb.make import no_progress
from tests.nb.relabel import WIDGET, Relabeller


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("notebooks").addoption(
        "--relational", action="store_true", help="run notebooks; compare every output, numbers by their relations"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The kernels see a learner who has done nothing yet."""
    stack = contextlib.ExitStack()
    stack.enter_context(no_progress())
    config.add_cleanup(stack.close)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if parent.config.option.relational and file_path.suffix == ".ipynb":
        return Notebook.from_parent(parent, path=file_path)
    return None


class Notebook(IPyNbFile):
    """A notebook, its two runs, and a relabeller for each."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.committed, self.fresh = Relabeller(), Relabeller()

    def collect(self) -> Iterator[pytest.Item]:
        for item in super().collect():
            yield Cell.from_parent(self, name=item.name, cell_num=item.cell_num, cell=item.cell, options=item.options)


class Cell(IPyNbCell):
    """A code cell."""

    def setup(self) -> None:
        super().setup()
        # The first output after a kernel's work may come late under emulation.
        self.output_timeout = 60
        if self.cell.source.strip() and self.cell.execution_count is None:
            self.raise_cell_error("This cell was never run before it was committed: make notebooks")

    def compare_outputs(self, test: list[Any], ref: list[Any], skip_compare: Any = None) -> bool:
        test, ref = copy.deepcopy(test), copy.deepcopy(ref)
        # A live view leaves its still picture by an update of what was shown, which nbval does not hear:
        # that there is a view is compared, and the cell behind it prints what it showed.
        for fresh, committed in zip(test, ref, strict=False):
            if WIDGET in fresh.get("data", {}):
                for one in (fresh, committed):
                    one["data"] = {"text/plain": "a live view"}
        test = [nbformat.from_dict(one) for one in self.parent.fresh.outputs(test)]
        ref = [nbformat.from_dict(one) for one in self.parent.committed.outputs(ref)]
        return bool(super().compare_outputs(test, ref, skip_compare))
