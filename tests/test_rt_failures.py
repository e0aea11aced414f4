"""Every system call of a start made to fail once, and every one the last that a process makes: nothing is left.

strace puts the failure, or SIGKILL, in the place of the n-th call of a name, in the maker or in the container's own
process; what comes before the kit's first call (Python's own start) is left alone.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from rt_ground import Ground, ground, until

from labkit.kernel import process

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

# What makes, changes or gives away something.  What only looks (stat, read) fails as these do, or not at all.
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
    "prctl",
    "setrlimit",
    "sethostname",
    "keyctl",
    "rename",
    "pipe2",
    "pidfd_open",
    "bpf",
    "socket",
    "close_range",
    "flock",
    "rmdir",
    "unlink",
    "dup2",
    "dup3",
    "write",
    "poll",
]
# These may fail, and the container is as it should be all the same: why.
NO_LOSS = {
    "rmdir": "the first is a short cut: what it does not take away is looked at, emptied and tried again",
    "prctl": "the title is for people",
    "fsopen": "where a new proc cannot be had (a user namespace), /proc is taken, once it is known to be one",
    "fsconfig": "the same",
    "fsmount": "the same",
    "mknodat": "where a node cannot be made (a user namespace), the machine's is shown",
    "setgroups": "EPERM is the kernel's word for a user namespace in which nobody can leave a group",
    "poll": "asked again",
    "openat2": "the guard before execve: any answer but ELOOP is execve's to give",
    "chdir": "where root may not go, the user tries once more",
    "write": "what is told to the other side",
}
# These take away: the failure is told, the container is remembered, and delete does the rest.
TO_BE_REPEATED = {"rmdir", "unlink", "pidfd_open", "write"}


@pytest.fixture
def runtime() -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    with ground() as made:
        made.kinds("pid", "network", "ipc", "uts", "mount", "cgroup")
        made.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
        made.process("/usr/bin/true")
        yield made


def traced(runtime: Ground, name: str, *words: str, inject: str = "") -> tuple[int, str, list[str]]:
    """One `run` under strace: its status, what it said, and the lines of the trace that are the kit's."""
    runtime.write()
    log = runtime.folder / "trace"
    options = ["-f", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}"]
    if inject:
        options += ["-e", f"inject={inject}"]
    done = subprocess.run(["strace", *options, *runtime.words(*words, name)], cwd=runtime.folder, capture_output=True,
                          text=True, timeout=60, stdin=subprocess.DEVNULL)  # fmt: skip
    lines = log.read_text().splitlines()
    log.unlink()
    return done.returncode, done.stderr, lines


def called(lines: list[str]) -> dict[str, list[int]]:
    """{call: which of its occurrences are the kit's}, as strace counts: for each process anew.

    Those of the maker from the folder of the container on, and those of its children.  A number that would also hit
    Python's own start is left out.
    """
    maker = lines[0].split()[0]
    start = next(number for number, line in enumerate(lines) if "mkdir(" in line)
    before = Counter(_name(line) for line in lines[:start])
    counts: dict[str, Counter[str]] = {}
    found: dict[str, set[int]] = {}
    for line in lines:
        name = _name(line)
        number = counts.setdefault(line.split()[0], Counter())
        number[name] += 1
        if name in CALLS and number[name] > before[name]:
            found.setdefault(name, set()).add(number[name])
    assert len(counts) > 1 and maker in counts
    return {name: sorted(numbers) for name, numbers in found.items()}


def _name(line: str) -> str:
    found = re.match(r"\d+\s+(\w+)\(", line)
    return found[1] if found else ""


def nothing_left(runtime: Ground) -> None:
    """No container is remembered, no process of it lives; the census of mounts and cgroups is conftest's."""
    assert runtime.left() == []


@pytest.fixture(scope="module")
def counted() -> dict[str, list[int]]:
    """The calls of a start that succeeds."""
    with ground() as made:
        made.kinds("pid", "network", "ipc", "uts", "mount", "cgroup")
        made.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
        made.process("/usr/bin/true")
        status, said, lines = traced(made, "one", "run")
    assert status == 0, said
    found = called(lines)
    assert len(found) > 25 and {"mkdir", "clone3", "mount", "pivot_root", "capset"} <= found.keys()
    return found


def fails(runtime: Ground, name: str, number: int) -> None:
    """The n-th call of a name fails with EPERM: the start fails in words, or loses nothing; and nothing is left."""
    status, said, lines = traced(runtime, "one", "run", inject=f"{name}:error=EPERM:when={number}")
    if not any("(INJECTED)" in line for line in lines):  # how often some are called differs from run to run
        assert status == 0 and number > 1, f"{name} was not called {number} times, status {status}: {said}"
    where = f"{name}, call {number}: status {status}, {said}"
    if name in TO_BE_REPEATED and runtime.left():
        assert status and said, where
        runtime("delete", "--force", "one", check=True)
    nothing_left(runtime)
    assert "Traceback" not in said, where
    if status == 0 and any("(INJECTED)" in line for line in lines):
        assert name in NO_LOSS, where
    elif status:
        assert said.startswith("labkit-runtime run: ") and len(said.splitlines()[0]) > 30, where


def killed(runtime: Ground, name: str, number: int) -> None:
    """SIGKILL at the n-th call of a name: what is left can be deleted, and then nothing is."""
    traced(runtime, "one", "run", inject=f"{name}:signal=SIGKILL:when={number}")
    for found in runtime.left():
        state = runtime.state(found)
        assert state["status"] in ("stopped", "creating", "running"), state
        done = runtime("delete", "--force", found)
        assert done.returncode == 0, f"{name}, call {number}: {done.stderr}"
        until(lambda pid=state["pid"]: not pid or process.start_time(pid) is None)
    nothing_left(runtime)


@pytest.mark.parametrize("name", CALLS)
def test_the_first_of_a_name_fails(runtime: Ground, counted: dict[str, list[int]], name: str) -> None:
    """Each kind of call once: an error in words, and nothing is left."""
    if name in counted:
        fails(runtime, name, counted[name][0])


@pytest.mark.parametrize("name", ["clone3", "mount", "pivot_root", "mkdir", "rename", "capset", "dup2", "write"])
def test_killed_at_the_first_of_a_name(runtime: Ground, counted: dict[str, list[int]], name: str) -> None:
    """SIGKILL to whichever process makes it: delete --force gives all back."""
    killed(runtime, name, counted[name][0])


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_every_one_of_a_name_fails(runtime: Ground, counted: dict[str, list[int]], name: str) -> None:
    """All calls of that name, one after the other."""
    for number in counted.get(name, ()):
        fails(runtime, name, number)


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_killed_at_every_one_of_a_name(runtime: Ground, counted: dict[str, list[int]], name: str) -> None:
    """All calls of that name, one after the other."""
    for number in counted.get(name, ()):
        killed(runtime, name, number)
