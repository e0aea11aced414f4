"""The specification's clauses in the lab's machine, which has controllers, AppArmor, and a crun that starts."""

from __future__ import annotations

import shutil

import clauses_ground
import pytest
import rt_clauses
from clauses_ground import Found

from labkit.kernel import cgroups

PEERS = {"runc": "runc", "crun": "crun"}
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not all(map(shutil.which, PEERS)), reason="needs the peers: install runc and crun"),
]


@pytest.fixture(scope="module")
def limits() -> Found:
    """The clauses that only this machine can be asked for: emulated, each takes seconds."""
    return answers("needs:limits")


def answers(only: str) -> Found:
    """With every controller handed on to where the runtimes are asked; taken back in the end."""
    top = cgroups.root()
    new = cgroups.enable(top, {"cpu", "cpuset", "io", "memory", "pids"})
    try:
        return clauses_ground.asked(PEERS, limits=True, only=only)
    finally:
        cgroups.disable(top, new)


@pytest.mark.parametrize("name", [one.name for one in rt_clauses.every() if one.needs == "limits"])
def test_the_limit_is_kept(limits: Found, name: str) -> None:
    """By labkit-runtime; and what runc keeps is kept."""
    assert limits[name][clauses_ground.OURS] == "passed"


@pytest.mark.long
def test_every_clause_that_runc_keeps_is_kept() -> None:
    """All of them; with LABKIT_CLAUSES=FILE the answers are kept, for tests/clauses_table.py."""
    found = answers("")
    assert (clauses_ground.worse(found), clauses_ground.failed(found)) == ({}, {})
