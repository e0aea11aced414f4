"""The same config.json with limits under labkit-runtime, runc and crun, on a machine with controllers: one fingerprint.

The host compares more configurations (tests/test_rt_fingerprint.py); here crun makes cgroups too.
"""

from __future__ import annotations

import shutil

import pytest
import rt_differences
from rt_differences import OURS

from labkit.observe import census

NUMBERS = 16
PEERS = {"runc": "runc", "crun": "crun"}
pytestmark = [
    pytest.mark.skipif(not all(map(shutil.which, PEERS)), reason=f"needs the peers: apt-get install {' '.join(PEERS)}"),
]
Taken = dict[int, dict[str, set[str]]]


@pytest.fixture(scope="module")
def taken() -> Taken:
    """All fingerprints, taken once."""
    before = census.take()
    found = rt_differences.taken(NUMBERS, PEERS, limits=True)
    assert census.difference(before, census.take()) == []
    return found


@pytest.mark.parametrize("number", range(NUMBERS))
def test_the_fingerprint_is_the_peers(taken: Taken, number: int) -> None:
    """What the controllers are told, and all that the host's test compares."""
    found = taken[number]
    differing = {peer: rt_differences.unexplained(peer, found[peer], found[OURS]) for peer in PEERS}
    assert differing == {peer: [] for peer in PEERS}
    assert not any("refused: " in line for peer in PEERS for line in found[peer])
