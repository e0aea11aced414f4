"""Each cause of a refused change to a cgroup: provoked, named, mended, and then the same change succeeds."""

from __future__ import annotations

import os
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from causes_ground import Case, prove

from labkit.kernel import cgroups, mounts

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root"),
    pytest.mark.skipif(mounts.find("cgroup2") is None, reason="this machine has no cgroup2 tree at all"),
]

# `c` is a controller that counts whole processes; `a` and `b` are cgroups for the case.
SETUP = """
group, c = Path(sys.argv[1]), sys.argv[2]
a, b = group / "a", group / "b"
SWITCH, PROCS = "cgroup.subtree_control", "cgroup.procs"
text = f"+{c}"
"""

CASES = {
    "cgroups.processes_inside": Case(
        "pid = sleeper(); (group / PROCS).write_text(str(pid))",
        "wrote(group / SWITCH, text)",
        "a.mkdir(); (a / PROCS).write_text(str(pid))",
        "processes sit in /sys",
    ),
    "cgroups.handed_on_below": Case(
        'a.mkdir(); (group / SWITCH).write_text(text); (a / SWITCH).write_text(text); text = f"-{c}"',
        "wrote(group / SWITCH, text)",
        "(a / SWITCH).write_text(text)",
        "/a hands",
    ),
    "cgroups.controller_not_handed": Case(
        "a.mkdir()", "wrote(a / SWITCH, text)", "(group / SWITCH).write_text(text)", "has it and does not hand it on"
    ),
    "cgroups.unknown_controller": Case(
        'text = "+nosuch"', "wrote(group / SWITCH, text)", 'text = f"+{c}"', "no controller 'nosuch'"
    ),
    "cgroups.target_hands_on": Case(
        "a.mkdir(); (group / SWITCH).write_text(text); text = str(sleeper()); target = group",
        "wrote(target / PROCS, text)",
        "target = a",
        "so has no processes of its own",
    ),
    "cgroups.domain_invalid": Case(
        'a.mkdir(); (a / "in").mkdir(); (a / "cgroup.type").write_text("threaded"); text = str(sleeper())',
        'wrote(a / "in" / PROCS, text)',
        '(a / "in/cgroup.type").write_text("threaded")',
        "above it is a threaded cgroup",
    ),
    "cgroups.thread_to_another_domain": Case(
        'a.mkdir(); text = str(sleeper()); file = "cgroup.threads"',
        "wrote(a / file, text)",
        "file = PROCS",
        "stays within the threaded tree",
    ),
    "cgroups.no_number": Case('text = "init"', "wrote(group / PROCS, text)", "text = str(sleeper())", "'init' is not"),
    "cgroups.no_such_process": Case(
        'text = "4194304"', "wrote(group / PROCS, text)", "text = str(sleeper())", "no process 4194304"
    ),
    "cgroups.ancestor_not_writable": Case(
        'a.mkdir(); b.mkdir(); os.chown(a, 12345, 12345); os.chown(a / PROCS, 12345, 12345); text = "0"',
        "forked(lambda: (ordinary(), wrote(a / PROCS, text))[1])",
        '(a / PROCS).write_text("0")',
        "user 12345 may not write its cgroup.procs",
    ),
    "cgroups.not_ones_own": Case(
        'text, file = "3", group / "cgroup.max.depth"',
        "forked(lambda: (ordinary(), wrote(file, text))[1])",
        "os.chown(file, 12345, 12345)",
        "belongs to user 0, and this is user 12345",
    ),
    "cgroups.only_threaded": Case(
        'a.mkdir(); text = "domain"', 'wrote(a / "cgroup.type", text)', 'text = "threaded"', "'domain'"
    ),
    "cgroups.threaded_with_domain_controllers": Case(
        'a.mkdir(); (group / SWITCH).write_text(text); text = "threaded"',
        'wrote(a / "cgroup.type", text)',
        '(group / SWITCH).write_text(f"-{c}")',
        "which counts whole processes",
    ),
    "cgroups.read_only": Case(
        'top = group.parent; flag(top, BIND | REMOUNT | C.MS_RDONLY); text = "3"',
        'wrote(group / "cgroup.max.depth", text)',
        "flag(top, BIND | REMOUNT)",
        "is mounted read-only",
    ),
    "cgroups.no_group": Case('text = "3"', 'wrote(a / "cgroup.max.depth", text)', "a.mkdir()", "there is no cgroup"),
    "cgroups.no_controller": Case(
        'a.mkdir(); file = next(one.name for one in group.glob(f"{c}.*max")); text = "max"',
        "wrote(a / file, text)",
        '(group / SWITCH).write_text(f"+{c}")',
        "is not handed to",
    ),
    "cgroups.removed": Case(
        """
        a.mkdir()
        file = a / "cgroup.max.depth"
        fd = os.open(file, os.O_WRONLY)
        a.rmdir()
        def written():
            try:
                os.write(fd, b"3")
            except OSError as error:
                return told(error, file.name, (file, "3"))
            return "done"
        """,
        "written()",
        "a.mkdir(); fd = os.open(file, os.O_WRONLY)",
        "has been removed since",
    ),
    "cgroups.not_a_value": Case(
        'text = "deep"', 'wrote(group / "cgroup.max.depth", text)', 'text = "max"', "'deep' is neither"
    ),
    "cgroups.out_of_range": Case('text = "-1"', 'wrote(group / "cgroup.max.depth", text)', 'text = "1"', "-1 is out"),
    "cgroups.too_deep": Case(
        'limit = group / "cgroup.max.depth"; limit.write_text("1"); a.mkdir()',
        'pythons(os.mkdir, str(a / "in"))',
        'limit.write_text("2")',
        "cgroup.max.depth is 1, and this would be level 2",
    ),
    "cgroups.too_many": Case(
        'limit = group / "cgroup.max.descendants"; limit.write_text("1"); a.mkdir()',
        "pythons(os.mkdir, str(b))",
        "a.rmdir()",
        "cgroup.max.descendants is 1, and 1",
    ),
    "cgroups.has_children": Case(
        'a.mkdir(); (a / "in").mkdir()', "pythons(os.rmdir, str(a))", '(a / "in").rmdir()', "cgroups are in it: in"
    ),
    "cgroups.has_processes": Case(
        """
        a.mkdir()
        pid = sleeper()
        (a / PROCS).write_text(str(pid))
        def emptied():
            (a / "cgroup.kill").write_text("1")
            os.waitpid(pid, 0)
            while (a / PROCS).read_text():
                time.sleep(0.001)
        """,
        "pythons(os.rmdir, str(a))",
        "emptied()",
        "processes sit in it: ",
    ),
}
NEED_A_CONTROLLER = {row for row, case in CASES.items() if "SWITCH" in case.setup + case.attempt + case.mend}


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    """A new cgroup with a controller for whole processes, where this machine has one; removed afterwards."""
    top = cgroups.root()
    row = request.node.callspec.params.get("row", "")
    domain = sorted({"memory", "io", "hugetlb"} & set(cgroups.controllers(top)))
    if row in NEED_A_CONTROLLER and not domain:
        pytest.skip("this machine's cgroup2 tree has no controller that is for whole processes")
    made = top / f"test-{uuid.uuid4().hex[:12]}"
    cgroups.create(made)
    new = cgroups.enable(top, set(domain[:1]))
    try:
        yield made, domain[0] if domain else "none"
    finally:
        cgroups.remove(made)
        cgroups.disable(top, new)


@pytest.mark.parametrize("row", CASES)
def test_a_condition_of_a_cgroup_is_named_and_mended(row: str, group: tuple[Path, str]) -> None:
    """The row is the one that is found; after its advice the same change succeeds."""
    prove(row, CASES[row]._replace(setup=SETUP + textwrap.dedent(CASES[row].setup)), str(group[0]), group[1])
