"""cgroup v2: made, entered, emptied and removed, below a group of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import LabError, Refused
from labkit.kernel import cgroups, mounts, process, syscalls

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root"),
    pytest.mark.skipif(mounts.find("cgroup2") is None, reason="this machine has no cgroup2 tree at all"),
]


@pytest.fixture
def group() -> Iterator[Path]:
    """A new cgroup, removed afterwards."""
    made = cgroups.root() / f"test-{uuid.uuid4().hex[:12]}"
    cgroups.create(made)
    yield made
    cgroups.remove(made)


def test_a_group_is_removed_with_all_that_runs_below(group: Path) -> None:
    """Processes in nested groups are killed and waited for; the second time is fine."""
    deep = group / "a/b"
    deep.mkdir(parents=True)
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    for child, where in zip(children, (group, group / "a", deep), strict=True):
        cgroups.attach(where, child.pid)
    assert cgroups.processes(deep) == [children[2].pid]
    cgroups.remove(group)
    assert not group.exists() and [child.wait(timeout=10) for child in children] == [-9] * 3
    cgroups.remove(group)


def test_a_child_is_born_in_its_group(group: Path) -> None:
    """clone3 with a cgroup's descriptor: the child has never been anywhere else."""
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    reading, writing = os.pipe()
    pid = syscalls.clone3(0, cgroup_fd=fd)
    if pid == 0:
        os.write(writing, Path("/proc/self/cgroup").read_bytes())
        os._exit(0)
    os.waitpid(pid, 0)
    seen = os.read(reading, 4096).decode()
    for one in (fd, reading, writing):
        os.close(one)
    assert f"0::/{group.name}\n" in seen


def test_a_group_that_exists_is_an_error(group: Path) -> None:
    """Named, with the kernel's words."""
    with pytest.raises(LabError, match="File exists"):
        cgroups.create(group)


def test_processes_in_the_way_of_a_controller_are_named_and_mended(group: Path) -> None:
    """EBUSY: the message lists who sits in the group; moved below, the same call succeeds."""
    # cpu and pids can be handed on beside processes, to threads; these cannot.
    domain = {"memory", "io", "hugetlb"} & set(cgroups.controllers(group.parent))
    if not domain:
        pytest.skip("this machine's cgroup2 tree has no controller that is for whole processes")
    name = min(domain)
    new = cgroups.enable(group.parent, {name})
    child = subprocess.Popen(["sleep", "60"])
    try:
        cgroups.attach(group, child.pid)
        with pytest.raises(LabError) as caught:
            cgroups.enable(group, {name})
        assert str(child.pid) in caught.value.why and "busy" in caught.value.why and "mkdir" in caught.value.next
        (group / "own").mkdir()
        cgroups.attach(group / "own", child.pid)
        assert cgroups.enable(group, {name}) == {name} and cgroups.enable(group, {name}) == set()
    finally:
        child.kill()
        child.wait()
        cgroups.remove(group)
        cgroups.disable(group.parent, new)


def test_a_limit_without_its_controller_is_explained(group: Path) -> None:
    """The file is not there, and why."""
    with pytest.raises(LabError, match="the controller nosuch is not handed to"):
        cgroups.limit(group, {"nosuch.max": "1"})


def test_a_missing_controller_is_refused_with_its_option() -> None:
    """The option that asked for it is named, and what the tree has instead."""
    with pytest.raises(Refused) as caught:
        cgroups.require({"nosuch"}, {"nosuch": "--nosuch"})
    assert "--nosuch needs the nosuch controller" in caught.value.what and "cgroup.controllers" in caught.value.why


def test_flat_keyed_files_are_numbers(group: Path) -> None:
    """cgroup.events of an empty group."""
    assert cgroups.read_table(group, "cgroup.events")["populated"] == 0


MOVED = """
import os, sys
from pathlib import Path
from labkit.errors import LabError
from labkit.kernel import causes, cgroups
if sys.argv[2:]:
    os.setuid(int(sys.argv[2]))
before = Path("/proc/self/cgroup").read_text()
try:
    print("moved", cgroups.move(sys.argv[1], sys.argv[1] + "/other"))
except LabError as error:
    print(error)
print(Path("/proc/self/cgroup").read_text() == before)
"""


@pytest.mark.parametrize(("before", "user", "words"), [
    ([], ["65534"], "Permission denied"),
    (["unshare", "--pid", "--fork", "--mount-proc"], [], "outside of this pid namespace"),
], ids=["another user's", "another pid namespace's"])  # fmt: skip
def test_a_process_that_cannot_be_moved_is_told(group: Path, before: list[str], user: list[str], words: str) -> None:
    """It is neither taken for a kernel thread, nor is the caller moved in its place."""
    cgroups.create(group / "other")
    with subprocess.Popen(["sleep", "60"]) as child:
        cgroups.attach(group, child.pid)
        done = subprocess.run([*before, sys.executable, "-c", MOVED, str(group), *user], capture_output=True, text=True)
        still = cgroups.processes(group)
        child.kill()
    assert done.stdout.endswith("True\n") and words in done.stdout, (done.stdout, done.stderr)
    assert still == [child.pid]


def test_a_kernel_thread_is_known_by_its_flags() -> None:
    """Those that `ps` puts below kthreadd (2), itself too; not this process; None of one that is gone."""
    rows = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    family = [[int(word) for word in row.split()] for row in rows.splitlines()]
    seen = {pid: process.of_the_kernel(pid) for pid, _ in family}
    threads = {pid for pid, parent in family if 2 in (pid, parent) and Path("/proc/2/comm").read_text() == "kthreadd\n"}
    assert {pid for pid, found in seen.items() if found} <= threads
    assert {pid for pid in threads if seen[pid] is False} == set()
    assert process.of_the_kernel(os.getpid()) is False and process.of_the_kernel(2**22 - 1) is None
