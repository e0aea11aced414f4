"""labkit-runtime keeps the OCI runtime specification clause by clause, and every clause that runc keeps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import clauses_ground
import pytest
import rt_clauses
from clauses_ground import Found

from labkit.observe import census

TABLE = Path(__file__).with_name("CLAUSES.md")
PEERS = {"runc": "runc", "crun": "crun --cgroup-manager=disabled"}
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes containers: needs root"),
    pytest.mark.skipif(not all(map(shutil.which, PEERS)), reason=f"needs the peers: apt-get install {' '.join(PEERS)}"),
]


@pytest.fixture(scope="module")
def found() -> Found:
    """Every clause asked of every runtime, once."""
    before = census.take()
    answers = clauses_ground.asked(PEERS, limits=False)
    assert census.difference(before, census.take()) == []
    return answers


@pytest.mark.parametrize("name", [one.name for one in rt_clauses.every()])
def test_the_clause_is_kept(found: Found, name: str) -> None:
    """By labkit-runtime, or it cannot be shown on this machine, or it is left out for a reason."""
    assert clauses_ground.failed({name: found[name]}) == {}


def test_no_clause_is_kept_by_runc_and_not_here(found: Found) -> None:
    """The bar."""
    assert clauses_ground.worse(found) == {}


def test_a_runtime_that_does_nothing_keeps_hardly_a_clause() -> None:
    """The checks can fail: `true` refuses nothing and runs nothing."""
    found = clauses_ground.asked({"runc": "true"}, limits=False, only="runtime.md")
    kept = [name for name, row in found.items() if row["runc"] == "passed"]
    assert len(found) > 25 and kept == []


def test_the_written_table_has_each_clause_and_what_the_bar_says() -> None:
    """CLAUSES.md is of these clauses; in no row does runc pass where labkit does not."""
    rows = [line.strip("|").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in row] for row in rows]
    names = {f"{one.name} ({one.level})" for one in rt_clauses.every()}
    assert {row[0] for row in rows} == names and len(rows) == len(names)
    assert head[2:] and len(head) == 2 + 3 * 2
    for row in rows:
        for ours, runc in ((row[2], row[3]), (row[5], row[6])):
            assert ours == "passed" or runc != "passed", row


def test_each_clause_stands_once_and_each_deviation_is_a_clause() -> None:
    """A name is a key."""
    names = [one.name for one in rt_clauses.every()]
    assert len(names) == len(set(names)) > 100
    assert set(clauses_ground.DEVIATIONS) <= set(names)
