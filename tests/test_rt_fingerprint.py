"""The same config.json under labkit-runtime, runc and crun: one fingerprint, or a difference that is listed.

This host has the least of cgroups; what the controllers are told is compared in the lab's machine (tests/guest).
"""

from __future__ import annotations

import os
import shutil

import pytest
import rt_configurations
import rt_differences
from rt_differences import OURS
from rt_schema import problems

from labkit.observe import census

NUMBERS = 120
# Without CAP_SYS_RESOURCE, which root in a sandbox may lack, crun cannot load a program for devices.
PEERS = {"runc": "runc", "crun": "crun --cgroup-manager=disabled"}
# What starts containers is the fixture, which counts what is left itself; comparing touches nothing.
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="starts containers: needs root"),
    pytest.mark.skipif(not all(map(shutil.which, PEERS)), reason=f"needs the peers: apt-get install {' '.join(PEERS)}"),
]
Taken = dict[int, dict[str, set[str]]]


@pytest.fixture(scope="module")
def taken() -> Taken:
    """All fingerprints, taken once."""
    before = census.take()
    found = rt_differences.taken(NUMBERS, PEERS, limits=False)
    assert census.difference(before, census.take()) == []
    return found


def test_the_configurations_are_many_and_meet_every_choice() -> None:
    """All of them different, all as the schema says, and each choice of each part met five times."""
    made = [rt_configurations.made(number) for number in range(NUMBERS)]
    assert len({str(config) for config, _ in made}) == NUMBERS
    assert [found for config, _ in made if (found := problems(config, "config"))] == []
    for part, choices in rt_configurations.PARTS.items():
        for index in range(len(choices)):
            assert sum(picked[part] == index for _, picked in made) >= 5, (part, choices[index])


@pytest.mark.parametrize("number", range(NUMBERS))
def test_the_fingerprint_is_the_peers(taken: Taken, number: int) -> None:
    """Namespaces, mounts, cgroup, capabilities, filter, limits, environment, descriptors, settings, files."""
    found = taken[number]
    differing = {peer: rt_differences.unexplained(peer, found[peer], found[OURS]) for peer in PEERS}
    assert differing == {peer: [] for peer in PEERS}


@pytest.mark.parametrize("peer", PEERS)
def test_every_row_of_the_list_is_needed(taken: Taken, peer: str) -> None:
    """A difference that is no more leaves the list."""
    pairs = [(found[peer], found[OURS]) for found in taken.values()]
    assert rt_differences.unused("host", peer, pairs) == []


@pytest.mark.parametrize("peer", PEERS)
def test_hardly_anything_is_refused(taken: Taken, peer: str) -> None:
    """A configuration that the peer does not start compares nothing."""
    refused = [number for number, found in taken.items() if any("refused: " in line for line in found[peer])]
    assert refused == []
