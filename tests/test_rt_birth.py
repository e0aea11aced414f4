"""A birth that stops between its steps is the same birth: the same calls, the same container, and nothing left."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest
from rt_ground import Ground, ground

from labkit.errors import BadInput, LabError
from labkit.lessons.birth import Birth
from labkit.runtime.life import born, stepping

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

NAMED = ["cloned", "mapped", "waiting", "networked", "labelled", "mounted", "hooked", "pivoted", "attached", "masked",
         "limited", "dropped", "created", "filtered", "executed"]  # fmt: skip
# The gate's own, and what Python does for it (it imports and prints); all else must be the same.
GATES = {"read", "write"}
CALLS = [
    "clone3",
    "unshare",
    "mount",
    "umount2",
    "pivot_root",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "mount_setattr",
    "openat2",
    "mkdir",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "fchownat",
    "chdir",
    "fchdir",
    "setresuid",
    "setresgid",
    "setgroups",
    "setsid",
    "capset",
    "sethostname",
    "keyctl",
    "bpf",
    "socket",
    "execve",
    "rmdir",
    "dup2",
    "prlimit64",
]


@pytest.fixture
def runtime() -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    with ground() as made:
        made.kinds("pid", "network", "ipc", "uts", "mount")
        made.process("/usr/bin/sh", "-c", "echo born; exit 5")
        made.write()
        yield made


def test_the_steps_are_the_issues() -> None:
    """The maker's two, and the child's in their order; each says which fields are behind it."""
    assert ["cloned", "mapped", *(step.__name__ for step in born.STEPS)] == NAMED
    assert list(stepping.FIELDS) == NAMED


def test_a_birth_is_walked_step_by_step(runtime: Ground) -> None:
    """Every step in its order, with its calls and what is new in the kernel; the end is the program's."""
    with Birth(runtime.folder, runtime.words()) as birth:
        first = birth.step()
        assert first.name == "cloned" and "CLONE_NEWPID" in first.calls[-1] and first.fields["linux.namespaces"]
        assert {"processes", "namespaces"} & {change.kind for change in first.changes} or first.changes
        mounted = birth.to("mounted")
        assert any(call.startswith('mount("proc"') for call in mounted.calls)
        assert "/proc" in mounted.text and mounted.picture.svg.startswith("<svg")
        assert birth.step().name == "hooked"
        pivoted = birth.step()
        assert pivoted.name == "pivoted" and pivoted.calls[0] == 'pivot_root(".", ".") = 0'
        with pytest.raises(BadInput, match="already"):
            birth.to("mounted")
        assert birth.finish() == 5
        assert [step.name for step in birth.steps] == NAMED
        assert birth.said == "born\n"
        assert birth.steps[-1].calls[0].startswith('execve("/usr/bin/sh", ["/usr/bin/sh", "-c",')
    film = birth.film()
    assert film.text.splitlines()[0].split()[1] == "cloned" and film.sheet().count("<svg") == len(NAMED) + 1
    assert runtime.left() == []


@pytest.mark.parametrize("name", ["cloned", "mapped", "mounted", "pivoted", "dropped", "filtered"])
def test_left_in_the_middle_nothing_remains(runtime: Ground, name: str) -> None:
    """Whoever leaves the `with` ends the birth, wherever it stands."""
    with Birth(runtime.folder, runtime.words()) as birth:
        birth.to(name)
    assert runtime.left() == []
    assert not [path for path in runtime.folder.iterdir() if path.name.startswith(".birth")]


def test_a_birth_that_cannot_begin_leaves_nothing(runtime: Ground) -> None:
    """Without a runtime there is no child, no open descriptor and no file."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Birth(runtime.folder, ["/no/such/runtime"])
    assert len(os.listdir("/proc/self/fd")) == before
    assert not [path for path in runtime.folder.iterdir() if path.name.startswith(".birth")]


def test_a_step_that_hangs_is_named(runtime: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that waits holds the birth up: the message has the last step that was made."""
    monkeypatch.setattr("labkit.lessons.birth.SECONDS", 3.0)
    runtime.config["hooks"] = {"startContainer": [{"path": "/usr/bin/sleep", "args": ["sleep", "20"]}]}
    runtime.write()
    with Birth(runtime.folder, runtime.words()) as birth, pytest.raises(LabError, match="the step behind 'dropped'"):
        birth.finish()
    assert runtime.left() == []


def test_a_films_sheet_has_the_lines_of_the_document(runtime: Ground) -> None:
    """Each field of config.json stands above the picture of the step that obeys it, a long one cut."""
    with Birth(runtime.folder, runtime.words()) as birth:
        birth.to("limited")
    sheet = birth.film().sheet()
    assert "hostname: &quot;labkit&quot;</text>" in sheet and sheet.index("linux.namespaces") < sheet.index(">pivoted<")


def test_a_birth_that_fails_says_why(runtime: Ground) -> None:
    """The step that fails ends it, in the runtime's words."""
    runtime.process("/no/such")
    runtime.write()
    with Birth(runtime.folder, runtime.words()) as birth:
        with pytest.raises(LabError, match="no further step") as caught:
            birth.finish()
        assert "no such file" in str(caught.value) and birth.steps[-1].name == "limited"
    assert runtime.left() == []


def test_stepped_and_straight_make_the_same_calls(runtime: Ground) -> None:
    """strace of both, process by process: but for the gate's own, the names are the same in the same order."""

    def walked(*more: str) -> list[list[str]]:
        log = runtime.folder / "trace"
        words = [
            "strace",
            "-f",
            "-qq",
            "-o",
            str(log),
            "-e",
            f"trace={','.join(CALLS)}",
            *runtime.words("run", *more, "x"),
        ]
        done = subprocess.run(words, cwd=runtime.folder, input="\n" * 30, capture_output=True, text=True, timeout=60)
        assert done.returncode == 5, done.stderr
        by: dict[str, list[str]] = {}
        for line in log.read_text().splitlines():
            if found := re.match(r"(\d+)\s+(\w+)\(", line):
                by.setdefault(found[1], []).append(found[2])
        return list(by.values())

    walked()  # the folders that mounts need stay in the root file system
    assert walked("--step") == walked()


def test_people_read_each_step(runtime: Ground) -> None:
    """--step: the step, the fields and the calls on standard error, and on with each line."""
    done = runtime("run", "--step", "x", stdin=None, input="\n" * 30)
    assert done.returncode == 5 and done.stdout == "born\n"
    assert re.findall(r"^(\w+)  \(process \d+\)$", done.stderr, re.M) == NAMED
    assert f"  hostname: {json.dumps('labkit')}" in done.stderr and 'pivot_root(".", ".") = 0' in done.stderr
