"""The fixtures of the build tests, as a pytest plugin: see build_ground."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_ground import Ground
from runtime_ground import Machine


@pytest.fixture
def ground(machine: Machine, tmp_path: Path) -> Ground:
    """The machine of the file, and a context of the test's own."""
    return Ground(machine, tmp_path / "context")
