"""`make notebooks`: run every notebook's source in the lab and write its executed twin.

    python -m tests.nb.make [NAME ...]                on the host: starts nothing, the lab must be up
    python -m tests.nb.make --solved [NAME ...]       every exercise's cell holds its reference; writes nothing
    python -m tests.nb.make [--solved] --here SOURCE  in the lab's machine: this very file

A second run changes no line: where a cell's outputs equal the committed ones up to the
numbers that the kernel hands out, the committed ones stay.  No run reads or changes a
learner's progress, and each must leave the machine's census as it found it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.nb.relabel import WIDGET

TREE = Path(__file__).resolve().parents[2]
SOURCES = TREE / "notebooks" / "source"
PICTURE = TREE / "notebooks" / "pictures" / "one-container.svg"
KERNEL = {"display_name": "Python 3 (the lab)", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
CELL_TIME = 150  # seconds; the budget of a whole notebook
SETTLING = 20  # seconds for what a kernel left to end by itself
STARTER = re.compile(r"# exercise: ([a-z0-9-]+)\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="run the notebooks and write their executed twins")
    parser.add_argument("--here", type=Path, help="run this source on this machine")
    parser.add_argument("--check", action="store_true", help="do not run: is each twin made from its present source?")
    parser.add_argument("--solved", action="store_true", help="with every exercise solved by its reference")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    if given.here:
        (execute_solved if given.solved else execute)(given.here)
        return 0
    every = sorted(SOURCES.glob("*.py"))
    for name in given.names:
        if not any(path.stem.startswith(name) for path in every):
            parser.error(f"no notebook begins with {name!r}; there are {', '.join(path.stem for path in every)}")
    sources = [path for path in every if not given.names or path.stem.startswith(tuple(given.names))]
    if given.check:
        return max((check(path) for path in sources), default=0)
    status = 0
    for path in sources:
        words = [sys.executable, "-m", "labkit", "guest", "exec", "--", "env", "PYTHONPATH=/lab"]
        words += ["/opt/labkit/venv/bin/python", "-m", "tests.nb.make", *(["--solved"] if given.solved else [])]
        words += ["--here", str(path.relative_to(TREE))]
        status |= subprocess.run(words, cwd=TREE).returncode
    return status


def twin(source: Path) -> Path:
    return source.parents[1] / f"{source.stem}.ipynb"


def read(source: Path) -> Any:
    """The notebook of a py:percent source, without outputs, with cell ids that do not change by themselves."""
    import jupytext

    notebook = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02}"
        # A function's two empty lines stand behind the source's mark of a cell, and before nothing in a cell.
        cell.source = cell.source.lstrip("\n")
    notebook.metadata = dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(source: Path) -> None:
    """Run the source's cells in a new kernel; write the twin."""
    import nbformat

    notebook = read(source)
    run(notebook, source)
    normalise(notebook)
    if twin(source).exists():
        settle(notebook, nbformat.read(twin(source), as_version=4))
    nbformat.write(notebook, twin(source))
    if source.stem.startswith("00"):
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(sheet(notebook))
    print(f"{twin(source).name}: {sum(cell.cell_type == 'code' for cell in notebook.cells)} code cells ran")


def execute_solved(source: Path) -> None:
    """Run the source with every starter cell replaced by its exercise's reference; an error ends it."""
    notebook = read(source)
    names = solve(notebook)
    run(notebook, source)
    print(f"{source.name}: ran to its end with {len(names)} exercises solved: {' '.join(names) or 'it has none'}")


def solve(notebook: Any) -> list[str]:
    """Put the references into the starter cells; the exercises' names."""
    from labkit.lessons import task

    names = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and (found := STARTER.match(cell.source + "\n")):
            cell.source = task.find(found[1]).text("reference").rstrip()
            names.append(found[1])
    return names


def run(notebook: Any, source: Path) -> None:
    """Run the cells in a new kernel, for a learner who has done nothing yet, and count what the kernel leaves."""
    from nbclient import NotebookClient

    with nothing_left(source.name), no_progress():
        NotebookClient(
            notebook, timeout=CELL_TIME, startup_timeout=300, resources={"metadata": {"path": str(twin(source).parent)}}
        ).execute()


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Kernels that start in the `with` find an empty folder where a learner's progress is."""
    before = os.environ.get("LABKIT_PROGRESS")
    with tempfile.TemporaryDirectory(prefix="labkit-progress-") as folder:
        os.environ["LABKIT_PROGRESS"] = folder
        try:
            yield
        finally:
            os.environ.pop("LABKIT_PROGRESS")
            os.environ.update({"LABKIT_PROGRESS": before} if before is not None else {})


@contextlib.contextmanager
def nothing_left(name: str) -> Iterator[None]:
    """The machine's census after the `with` is the one before it, or the run fails."""
    from labkit.observe import census

    before = census.take()
    yield
    deadline = time.monotonic() + SETTLING
    while (left := census.difference(before, census.take())) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        raise SystemExit(f"{name} does not leave the machine as it found it:\n  " + "\n  ".join(left))


def normalise(notebook: Any) -> None:
    """Remove what says when, how often and by which Python the cells ran, and the widgets, whose text stands beside."""
    import nbformat
    from nbval.plugin import coalesce_streams

    notebook.metadata = nbformat.from_dict(METADATA)
    number = 0
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number
            cell.outputs = coalesce_streams(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
                if "execution_count" in output:
                    output.execution_count = number


def settle(new: Any, old: Any) -> None:
    """Keep the committed outputs when the whole notebook says the same, its pictures aside."""
    from tests.nb.relabel import Relabeller

    if same_sources(new, old) and _said(new, Relabeller()) == _said(old, Relabeller()):
        for mine, committed in zip(new.cells, old.cells, strict=True):
            if mine.cell_type == "code":
                mine.outputs = committed.outputs


def same_sources(new: Any, old: Any) -> bool:
    return [(cell.cell_type, cell.source) for cell in new.cells] == [
        (cell.cell_type, cell.source) for cell in old.cells
    ]


def _said(notebook: Any, relabeller: Any) -> list[Any]:
    said = [relabeller.outputs(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    for outputs in said:
        for output in outputs:
            output.get("data", {}).pop("image/png", None)
    return said


def sheet(notebook: Any) -> str:
    """The README's picture: the SVGs of notebook 00, each under its section's heading."""
    from labkit.draw.sheet import stack

    heading, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((line[3:] for line in cell.source.splitlines()[::-1] if line.startswith("## ")), heading)
        for output in cell.get("outputs", []):
            if "image/svg+xml" in output.get("data", {}):
                found.append((heading, "".join(output.data["image/svg+xml"])))
    return stack(found)


def check(source: Path) -> int:
    import nbformat

    path = twin(source)
    if path.exists() and same_sources(read(source), nbformat.read(path, as_version=4)):
        return 0
    print(f"{path.name} was not made from the present {source.name}: make notebooks", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
