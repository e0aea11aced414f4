"""The seven breakages of notebook 06: each breaks what it says, and nothing stays broken."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from labkit.lessons import breakages, task
from labkit.lessons.breakages import BREAKAGES, Place
from labkit.lessons.ground import Ground

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")]

# What stops; the rest must go on.  A machine whose rules meet bridged frames too loses the neighbour with dockerd.
STOPS = {
    "forwarding_off": {"world", "large", "outside"},
    "no_route": {"world", "large", "outside"},
    "mtu_mismatch": {"large"},
    "stale_rule": {"outside"},
    "duplicate_address": {"neighbour", "gateway", "world", "large", "name", "outside"},
    "dead_name_server": {"name"},
    "docker_drops": {"world", "large", "outside"},
}


@pytest.fixture
def place() -> Iterator[Place]:
    build = task.function_of(task.TASKS / "mend" / "check.py", "build")
    with Ground("mend", ("mnt", "net")) as lab:
        found = build(lab)
        breakages.settle(found)
        breakages.unbreak(found)
        yield found


@pytest.mark.parametrize("one", BREAKAGES.values(), ids=lambda one: one.__name__)
def test_a_breakage_stops_what_it_says_and_can_be_undone(place: Place, one: breakages.Breakage) -> None:
    """On a ground where all works: what stops, and that all works again afterwards."""
    whole = breakages.symptoms(place)
    assert whole.fine and whole.says == ""
    one(place)
    seen = breakages.symptoms(place)
    breakages.unbreak(place)
    stopped = {name for name in breakages.WORDS if not getattr(seen, name)}
    assert stopped - ({"neighbour"} if one is breakages.docker_drops else set()) == STOPS[one.__name__]
    assert breakages.symptoms(place).fine
