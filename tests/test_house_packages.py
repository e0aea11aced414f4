"""The same packages everywhere: pip's list, conda's list and the machine's list name the same things."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

TREE = Path(__file__).resolve().parent.parent
# What conda-forge's list has beyond pip's: Python itself, pip for the checkout, and the one program.
CONDA_ONLY = {"python", "pip", "crane"}
# What the machine has beyond the notebooks' needs: the tests run there too.
MACHINE_ONLY = {"jupytext", "pytest", "hypothesis", "jsonschema"}


def parsed(lines: list[str]) -> dict[str, str]:
    """Package name to version bound ("" for none); a line that is neither is an error."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)((?:>=|==|<)[0-9.]+)?", line.strip())
        assert match, f"cannot read the requirement {line!r}"
        found[match[1].lower()] = match[2] or ""
    return found


def project() -> dict[str, object]:
    return tomllib.loads((TREE / "pyproject.toml").read_text())["project"]


def extra(name: str) -> dict[str, str]:
    return parsed(project()["optional-dependencies"][name])  # type: ignore[index]


def machine() -> dict[str, str]:
    lines = (TREE / "vagrant" / "requirements.txt").read_text().splitlines()
    return parsed([line for line in lines if line and not line.startswith("#")])


def conda() -> dict[str, str]:
    return parsed(yaml.safe_load((TREE / "environment.yml").read_text())["dependencies"])


def test_conda_and_pip_name_the_same_packages_with_the_same_bounds() -> None:
    """environment.yml is pyproject.toml's extra `lab`, and python, pip and crane."""
    listed = conda()
    assert set(listed) >= CONDA_ONLY
    assert {name: bound for name, bound in listed.items() if name not in CONDA_ONLY} == extra("lab")


def test_the_machine_has_what_pip_would_install() -> None:
    """vagrant/requirements.txt is the extra `lab`, and what the tests in the machine need."""
    listed = machine()
    assert set(listed) >= MACHINE_ONLY
    assert {name: bound for name, bound in listed.items() if name not in MACHINE_ONLY} == extra("lab")


def test_the_machine_tests_with_the_versions_of_the_host() -> None:
    """The bounds of the tests' packages agree between the machine and pyproject.toml's extra `test`."""
    test = extra("test")
    assert {name: machine()[name] for name in MACHINE_ONLY} == {name: test[name] for name in MACHINE_ONLY}


def test_python_is_bounded_alike() -> None:
    """conda's Python is pyproject.toml's requires-python."""
    assert conda()["python"] == project()["requires-python"]


def test_the_library_itself_needs_nothing() -> None:
    """labkit runs on a bare Python: no dependency outside the extras."""
    assert project()["dependencies"] == []


def test_the_licence_is_the_one_that_is_named() -> None:
    """LICENSE is the text of the licence in pyproject.toml."""
    assert project()["license"] == {"text": "Apache-2.0"}
    text = (TREE / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
