"""Notebook 00's exercise: not attempted, wrong, wrong in another way, and right are four answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from runtime_ground import until

from labkit.observe import container as see
from labkit.runtime import launch

NOTEBOOK = next((Path(__file__).resolve().parents[2] / "notebooks").glob("00_*.ipynb"))
IMAGE = "localhost:5000/nginx"
pytestmark = pytest.mark.guest


@pytest.fixture
def check() -> Iterator[Callable[[str], str]]:
    """The function of the notebook's own cell, with what the cells before it have made."""
    cells = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"]]
    (source,) = [cell for cell in cells if "def check(" in cell]
    with launch.run(IMAGE, name="page", publish=["8080:80"], replace=True) as box:
        see.wait_for_port(box.pid, 80)
        names = {"see": see, "urlopen": urlopen, "page": urlopen("http://127.0.0.1:8080").read().decode()}
        exec(source.replace('print(check("mine"))', ""), names)
        yield names["check"]
        launch.labkit("rm", "--force", "mine", check=False)


def test_the_exercise_tells_four_things_apart(check: Callable[[str], str]) -> None:
    """The unsolved state says so, wrong limits and a missing port are named, the notebook's solution is right."""
    assert check("mine").startswith("not attempted")
    with launch.run(IMAGE, name="mine", publish=["8081:80"], memory="128m", cpus="0.5"):
        assert check("mine").startswith("not yet: the kernel holds")
    with launch.run(IMAGE, name="mine", memory="64m", cpus="0.5"):
        assert check("mine").startswith("not yet: port 8081 says")
    solution = next(line for line in NOTEBOOK.read_text().splitlines() if "labkit run -d --name mine" in line)
    subprocess.run(solution.strip(' ",').removesuffix("\\n").split(), check=True, capture_output=True)
    until(lambda: check("mine") == "right", 60)  # nginx listens a moment after its start
