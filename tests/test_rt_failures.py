"""Every system call of a start made to fail once, and every one the last that a process makes: nothing is left.

strace puts the failure, or SIGKILL, in the place of the n-th call of a name, in the maker or in the container's own
process; what comes before the kit's first call (Python's own start) and after the program's execve is left alone.

A start that succeeds all the same must be excused, by the call and its arguments; and its program, which tells what
the kernel says of it, must find all that config.json asks for.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

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
    "symlinkat",
    "chdir",
    "fchdir",
    "setresuid",
    "setresgid",
    "setgroups",
    "setsid",
    "capset",
    "prctl",
    "prlimit64",
    "sethostname",
    "keyctl",
    "rename",
    "pipe2",
    "bpf",
    "socket",
    "close_range",
    "flock",
    "rmdir",
    "unlink",
    "dup2",
    "write",
]
ONLY = {"plain": ["mknodat", "fchownat", "setns"], "nested": ["seccomp"]}  # what one kind of ground makes beside these
ALL = [*CALLS, *(name for names in ONLY.values() for name in names)]
PROGRAM = "/usr/bin/cat"
TOLD = ("/proc/self/status", "/proc/self/limits", "/proc/self/oom_score_adj", "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/kernel/hostname", "/proc/self/mountinfo")  # fmt: skip
FIELDS = ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
          "NoNewPrivs", "Seccomp", "Seccomp_filters")  # fmt: skip


class Excuse(NamedTuple):
    """A call that may fail, by what strace shows of its arguments: the container is as it should be all the same."""

    call: str
    arguments: str  # a pattern
    why: str
    differs: str = "(?!)"  # a pattern of the lines of the program's that may differ: none


# The nodes, and what is hidden behind the null among them.
NODES = r"mount (/dev/\w+ .*|/proc/\w+ /null .*)"
EXCUSES = [
    Excuse("rmdir", "", "the first is a short cut: what it does not take away is looked at, emptied and tried again"),
    Excuse("prctl", "PR_SET_NAME", "the title is for people"),
    Excuse(
        "fsopen",
        '"proc"',
        "where a new proc cannot be had (a user namespace), /proc is taken, if it is one",
    ),
    Excuse("fsconfig", "", "the same"),
    Excuse("fsmount", "", "the same"),
    Excuse("mknodat", "", "where a node cannot be made (a user namespace) the machine's is shown", NODES),
    Excuse("setgroups", r"0, ", "EPERM is the kernel's word for a user namespace in which nobody can leave a group"),
    Excuse("mkdir", "state-filters", "what keeps a filter's program for the next start of the same"),
    Excuse("rename", "state-filters", "the same"),
    Excuse("openat2", "RESOLVE_NO_MAGICLINKS", "the guard before execve: any answer but ELOOP is execve's to give"),
    Excuse("chdir", "", "where root may not go, the user tries once more"),
]
# These take away: the failure is told, the container is remembered, and delete does the rest.
TO_BE_REPEATED = {"rmdir", "unlink", "write"}


@contextmanager
def made(kind: str) -> Iterator[Ground]:
    """A ground with much in config.json that its program can tell; `nested` has a user namespace and a filter too."""
    limits = [{"type": name, "soft": 100, "hard": 200} for name in ("RLIMIT_CORE", "RLIMIT_NOFILE")]
    with ground() as one:
        one.kinds("pid", "network", "ipc", "uts", "mount", "cgroup", *(["user"] if kind == "nested" else []))
        one.config["hostname"] = "inner"
        one.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
        one.process(PROGRAM, *TOLD, noNewPrivileges=True, oomScoreAdj=100, user={"uid": 5, "gid": 6, "umask": 0o27},
                    rlimits=limits)  # fmt: skip
        if kind == "plain":
            one.config["linux"]["namespaces"][2]["path"] = f"/proc/{os.getpid()}/ns/ipc"  # one that is there: setns
        else:
            mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
            one.config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
            one.config["linux"]["seccomp"] = {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
            }
            for path in (one.folder / "rootfs", *(one.folder / "rootfs").iterdir()):
                os.chown(path, 100000, 100000, follow_symlinks=False)
        yield one


@pytest.fixture
def runtime(kind: str) -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    with made(kind) as one:
        yield one


class Traced(NamedTuple):
    """A `run` under strace: its status, what it said, what its program told, and the lines that are the kit's."""

    status: int
    said: str
    told: list[str]
    lines: list[str]

    @property
    def injected(self) -> list[str]:
        """The calls that were made to fail."""
        return [line for line in self.lines if "(INJECTED)" in line]


def traced(runtime: Ground, name: str, *words: str, inject: str = "") -> Traced:
    """Run, and look at it."""
    runtime.write()
    log = runtime.folder / "trace"
    options = ["-f", "-y", "-qq", "-o", str(log), "-e", f"trace={','.join([*ALL, 'execve'])}"]
    if inject:
        options += ["-e", f"inject={inject}"]
    done = subprocess.run(["strace", *options, *runtime.words(*words, name)], cwd=runtime.folder, capture_output=True,
                          text=True, timeout=60, stdin=subprocess.DEVNULL)  # fmt: skip
    lines = own(log.read_text().splitlines())
    log.unlink()
    return Traced(done.returncode, done.stderr, told(done.stdout, runtime.folder.name), lines)


def own(lines: list[str]) -> list[str]:
    """Without what a process does as the container's program; a call whose line was interrupted is put together."""
    found: list[str] = []
    begun: dict[str, int] = {}
    programs: set[str] = set()
    for line in lines:
        pid, _, text = line.partition(" ")
        if pid in programs:
            continue
        if f'execve("{PROGRAM}"' in text:
            programs.add(pid)
        if (resumed := re.match(r"\s*<\.\.\. \w+ resumed>(.*)", text)) and pid in begun:
            found[begun.pop(pid)] += resumed[1]
            continue
        if text.endswith("<unfinished ...>"):
            begun[pid] = len(found)
        found.append(line.removesuffix("<unfinished ...>"))
    return found


def told(text: str, folder: str) -> list[str]:
    """What the program told, without what differs from run to run."""
    found = []
    for line in text.replace(folder, "FOLDER").splitlines():
        left, dash, right = line.partition(" - ")
        key = line.partition(":")[0]
        if dash:
            words = left.split(" ")
            found.append(" ".join(["mount", words[4], words[3], words[5], right]))
        elif "\t" not in line or key in FIELDS:
            found.append(line)
    return found


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
        if name == "execve":
            continue
        number = counts.setdefault(line.split()[0], Counter())
        number[name] += 1
        if name in ALL and number[name] > before[name]:
            found.setdefault(name, set()).add(number[name])
    assert len(counts) > 1 and maker in counts
    return {name: sorted(numbers) for name, numbers in found.items()}


def _name(line: str) -> str:
    found = re.match(r"\d+\s+(\w+)\(", line)
    return found[1] if found else ""


def nothing_left(runtime: Ground) -> None:
    """No container is remembered, no process of it lives; the census of mounts and cgroups is conftest's."""
    assert runtime.left() == []


class Counted(NamedTuple):
    """The calls of a start that succeeds, and what its program told."""

    calls: dict[str, list[int]]
    told: list[str]


@pytest.fixture(scope="module")
def counted() -> dict[str, Counted]:
    """For each kind of ground."""
    found = {}
    for kind in KINDS:
        with made(kind) as one:
            run = traced(one, "one", "run")
        assert run.status == 0, run.said
        found[kind] = Counted(called(run.lines), run.told)
    return found


KINDS = ("plain", "nested")
HERE = [pytest.param(kind, name, id=f"{kind}-{name}") for kind in KINDS for name in (*CALLS, *ONLY[kind])]


def test_the_program_tells_what_was_asked_for(counted: dict[str, Counted]) -> None:
    """Or the comparison with it would compare nothing."""
    for kind, found in counted.items():
        text = "\n".join(found.told)
        for wanted in (r"^NoNewPrivs:\t1$", r"^Uid:\t5\t5", r"^Gid:\t6\t6", r"^Umask:\t0027$",
                       r"^Max open files +100 +200 ", r"^100$", r"^1$", r"^inner$", r"^CapBnd:\t0{8}20000420$",
                       r"^mount /proc/keys /null ",
                       rf"^Seccomp:\t{2 if kind == 'nested' else 0}$"):  # fmt: skip
            assert re.search(wanted, text, re.MULTILINE), (kind, wanted, text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_of_the_list_is_made(counted: dict[str, Counted], kind: str) -> None:
    """A name that never comes tests nothing."""
    assert sorted({*CALLS, *ONLY[kind]} - counted[kind].calls.keys()) == []


def test_every_excuse_is_for_a_call_of_the_list() -> None:
    """Another one would never be needed."""
    assert {one.call for one in EXCUSES} <= {*ALL}


def fails(runtime: Ground, found: Counted, name: str, number: int) -> None:
    """The n-th call of a name fails with EPERM: the start fails in words, or loses nothing; and nothing is left."""
    run = traced(runtime, "one", "run", inject=f"{name}:error=EPERM:when={number}")
    where = f"{name}, call {number}: status {run.status}, {run.said}\n" + "\n".join(run.injected)
    if not run.injected:  # how often some are called differs from run to run
        assert run.status == 0 and number > 1, f"not called: {where}"
    if name in TO_BE_REPEATED and runtime.left():
        assert run.status and run.said, where
        runtime("delete", "--force", "one", check=True)
    nothing_left(runtime)
    assert "Traceback" not in run.said, where
    if run.status:
        assert run.said.startswith("labkit-runtime run: ") and len(run.said.splitlines()[0]) > 30, where
        return
    allowed = "(?!)"
    for line in run.injected:
        excuse = next((one for one in EXCUSES if one.call == name and re.search(one.arguments, line)), None)
        assert excuse, f"nobody was told: {where}"
        allowed += f"|{excuse.differs}"
    differing = {line for line in {*run.told} ^ {*found.told} if not re.fullmatch(allowed, line)}
    assert not differing, f"{where}: lost without a word: {sorted(differing)}"


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


@pytest.mark.parametrize(("kind", "name"), HERE)
def test_the_first_of_a_name_fails(runtime: Ground, counted: dict[str, Counted], kind: str, name: str) -> None:
    """Each kind of call once: an error in words, and nothing is left."""
    fails(runtime, counted[kind], name, counted[kind].calls[name][0])


@pytest.mark.parametrize("kind", ["plain"])
@pytest.mark.parametrize("name", ["clone3", "mount", "pivot_root", "mkdir", "rename", "capset", "dup2", "write"])
def test_killed_at_the_first_of_a_name(runtime: Ground, counted: dict[str, Counted], kind: str, name: str) -> None:
    """SIGKILL to whichever process makes it: delete --force gives all back."""
    killed(runtime, name, counted[kind].calls[name][0])


@pytest.mark.long
@pytest.mark.parametrize(("kind", "name"), HERE)
def test_every_one_of_a_name_fails(runtime: Ground, counted: dict[str, Counted], kind: str, name: str) -> None:
    """All calls of that name, one after the other."""
    for number in counted[kind].calls[name]:
        fails(runtime, counted[kind], name, number)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "name"), HERE)
def test_killed_at_every_one_of_a_name(runtime: Ground, counted: dict[str, Counted], kind: str, name: str) -> None:
    """All calls of that name, one after the other."""
    for number in counted[kind].calls[name]:
        killed(runtime, name, number)


@pytest.mark.parametrize("kind", ["plain"])
def test_rules_that_deny_no_device_need_no_program(runtime: Ground, kind: str) -> None:
    """As with runc: where none can be loaded, they are kept all the same, and it is said."""
    runtime.config["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    run = traced(runtime, "one", "run", inject="bpf:error=EPERM")
    assert run.injected and run.status == 0 and "no rules for devices are kept here" in run.said
