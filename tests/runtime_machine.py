"""The fixtures of the runtime tests, as a pytest plugin: see runtime_ground."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime_ground import Machine, image_layout, new_machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine for all tests of a file."""
    images = image_layout(tmp_path_factory.getbasetemp())
    with new_machine(tmp_path_factory.mktemp("machine"), images) as made:
        yield made


@pytest.fixture
def nothing_left(machine: Machine) -> Iterator[None]:
    """Every test ends with the census it began with."""
    before = machine.census()
    yield
    after = machine.census()
    assert after == before, [
        (kind, sorted(set(after[kind]) ^ set(before[kind]))) for kind in before if after[kind] != before[kind]
    ]
