"""Ground for the tests inside the lab's machine, as a pytest plugin: a machine with all controllers of cgroup v2.

The same namespaces as on the host (runtime_ground), but the images come from the lab's own registry.
Here labkit takes seconds to start under emulation, so that several steps share one process where they can.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime_ground import IMAGE, Machine, new_machine

from labkit.image.store import Store


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine for the whole session."""
    images = tmp_path_factory.mktemp("store") / "images"
    Store(images).pull(IMAGE)
    with new_machine(tmp_path_factory.mktemp("machine") / "of-its-own", images) as made:
        yield made
