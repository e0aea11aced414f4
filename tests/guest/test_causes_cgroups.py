"""Causes that want controllers of cgroup v2 which only the lab's machine has."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from causes_ground import Case, prove

from labkit.kernel import cgroups

pytestmark = pytest.mark.guest

SETUP = 'group = Path(sys.argv[1]); a = group / "a"; a.mkdir(exist_ok=True)\n'

CASES = {
    # The program itself goes into the cgroup: with one process allowed, it is that one.
    "namespaces.pids_max": Case(
        '(a / "cgroup.procs").write_text("0"); (a / "pids.max").write_text("1")',
        "pythons(os.fork)",
        '(a / "pids.max").write_text("max")',
        "pids.max is 1",
    ),
    "cgroups.out_of_range": Case(
        'text = "20000"', 'wrote(a / "cpu.weight", text)', 'text = "100"', "20000 is out of the range of cpu.weight"
    ),
    "cgroups.not_a_value": Case('text = "much"', 'wrote(a / "memory.max", text)', 'text = "max"', "'much' is neither"),
    "cgroups.no_controller": Case(
        '(a / "in").mkdir(); text = "5"',
        'wrote(a / "in" / "pids.max", text)',
        '(a / "cgroup.subtree_control").write_text("+pids")',
        "the controller pids is not handed to",
    ),
    "cgroups.processes_inside": Case(
        'pid = sleeper(); (a / "cgroup.procs").write_text(str(pid))',
        'wrote(a / "cgroup.subtree_control", "+memory")',
        '(a / "own").mkdir(); (a / "own/cgroup.procs").write_text(str(pid))',
        "(python",
    ),
}


@pytest.fixture
def group() -> Iterator[Path]:
    """A new cgroup that hands cpu, memory and pids on; removed afterwards."""
    top, names = cgroups.root(), {"cpu", "memory", "pids"}
    made = top / f"test-{uuid.uuid4().hex[:12]}"
    cgroups.create(made)
    new = cgroups.enable(top, names)
    try:
        cgroups.enable(made, names)
        yield made
    finally:
        cgroups.remove(made)
        cgroups.disable(top, new)


@pytest.mark.parametrize("row", CASES)
def test_a_condition_of_a_controller_is_named_and_mended(row: str, group: Path) -> None:
    """The row is the one that is found; after its advice the same change succeeds."""
    prove(row, CASES[row]._replace(setup=SETUP + CASES[row].setup), str(group))
