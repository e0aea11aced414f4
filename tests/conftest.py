"""What all tests share: which run where, and the census that each kernel test must leave as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# numpy, which matplotlib brings, starts a thread for each processor; kernel tests need a process with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from labkit.kernel import cgroups
from labkit.kernel.mounts import find
from labkit.kernel.syscalls import call
from labkit.observe import census

# make starts programs by posix_spawn, which leaves these two, the C library's own, ignored (glibc, spawni.c); every
# program that a test starts would have it so, and runc, which is compared with, passes it on.
for hidden in (32, 33):
    call("rt_sigaction", hidden, bytes(32), None, 8)

IN_THE_GUEST = Path("/opt/labkit/venv").exists()
# Folders of tests that want a place of their own; tests/run.py sends each there.
PLACES = {"guest": IN_THE_GUEST, "hostguest": not IN_THE_GUEST, "browser": not IN_THE_GUEST}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the tests that are long by nature")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests are left out by name (`-m long` and --long want them); a test in the wrong place says so."""
    if not config.getoption("--long") and "long" not in (config.option.markexpr or ""):
        left_out = [item for item in items if "long" in item.keywords]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if "long" not in item.keywords]
    for item in items:
        folder = item.path.parent.name
        if not PLACES.get(folder, True):
            item.add_marker(pytest.mark.skip(reason=f"tests/{folder} does not run on this side of the lab's machine"))


@pytest.fixture(autouse=True)
def census_unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """A kernel test gives back all that it took: the machine's census is the one before."""
    if not {"root", "guest"} & {mark.name for mark in request.node.iter_markers()} or os.geteuid() != 0:
        yield
        return
    before = census.take()
    yield
    leftovers_of_peers(before)
    assert census.difference(before, census.take()) == []


# What podman and runc leave on a machine when they first run there; labkit never makes or hands down any of it.
PODMANS = "libpod_parent"
RUNCS = ("cpuset", "hugetlb", "misc", "rdma")


def leftovers_of_peers(before: census.Census) -> None:
    """Give back what the engines that labkit is compared with keep: an empty cgroup, and controllers handed down."""
    top = find("cgroup2")
    if top is None:
        return
    if f"/{PODMANS}" not in before["cgroup"] and (top / PODMANS).is_dir():
        try:
            (top / PODMANS).rmdir()
        except OSError:
            return  # one of its containers is there: the census says so
    already = next((line.split()[3:] for line in before["cgroup"] if line.startswith("/ hands on ")), [])
    now = (top / "cgroup.subtree_control").read_text().split()
    cgroups.disable(top, set(RUNCS) & set(now) - set(already))
