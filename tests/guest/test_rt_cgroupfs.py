"""The cgroupfs driver of labkit-runtime: what it hands down is given back with the last container."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.kernel import cgroups
from labkit.runtime.groups import cgroupfs, shared

pytestmark = pytest.mark.guest


@pytest.fixture
def top() -> Iterator[Path]:
    """The tree's top, which hands on no io: nobody in this machine needs it."""
    found = cgroups.root()
    if before := handed(found) & {"io"}:
        cgroups.disable(found, before)
    assert "io" not in handed(found)
    yield found
    cgroups.enable(found, before)


def handed(group: Path) -> set[str]:
    return set((group / "cgroup.subtree_control").read_text().split())


def made(top: Path, name: str) -> str:
    group = f"{top}/{cgroupfs.DEFAULT}/{name}"
    cgroupfs.create(group, {"pids": {"limit": 9}})
    return group


def test_controllers_are_given_back_with_the_last_container(top: Path) -> None:
    """io is handed down for the first container, stays for the second, and goes with it."""
    one = made(top, "one")
    assert "io" in handed(top) and os.getxattr(f"{top}/{cgroupfs.DEFAULT}", shared.HANDED) == b"io"
    two = made(top, "two")
    cgroupfs.remove(one)
    assert "io" in handed(top) and Path(two, "pids.max").read_text() == "9\n"
    cgroupfs.remove(two)
    assert "io" not in handed(top) and not (top / cgroupfs.DEFAULT).exists()


def test_what_was_handed_down_before_stays(top: Path) -> None:
    """Somebody else's controller is not taken away."""
    cgroups.enable(top, {"io"})
    try:
        cgroupfs.remove(made(top, "one"))
        assert "io" in handed(top)
    finally:
        cgroups.disable(top, {"io"})


def test_a_cgroup_that_could_not_be_limited_leaves_nothing(top: Path) -> None:
    """The folders are gone, and the controllers are back."""
    with pytest.raises(Exception, match=r"io\.max"):
        cgroupfs.create(
            f"{top}/{cgroupfs.DEFAULT}/one",
            {"blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 999, "rate": 1}]}},
        )
    assert "io" not in handed(top) and not (top / cgroupfs.DEFAULT).exists()


def test_many_at_once_do_not_take_each_others_controllers(top: Path) -> None:
    """Ten times six processes make and remove at once, and each limit of io is kept while its cgroup is there."""
    code = (
        "import sys\n"
        "from labkit.runtime.groups import cgroupfs\n"
        "group = sys.argv[1]\n"
        "for _ in range(10):\n"
        "    cgroupfs.create(group, {'pids': {'limit': 9}})\n"
        "    assert 'io' in open(group + '/cgroup.controllers').read().split()\n"
        "    cgroupfs.remove(group)\n"
    )
    words = ["/opt/labkit/venv/bin/python", "-c", code]
    running = [subprocess.Popen([*words, f"{top}/{cgroupfs.DEFAULT}/{number}"]) for number in range(6)]
    assert [one.wait(120) for one in running] == [0] * 6
    assert "io" not in handed(top) and not (top / cgroupfs.DEFAULT).exists()
