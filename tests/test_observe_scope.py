"""What belongs to a scope, and what reading leaves behind, each tried in namespaces of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from bench.observe import UNSHARE
from labkit.observe import processes

TREE = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

PRELUDE = """
import ctypes, json, os, signal, subprocess, sys, threading, time
from labkit.kernel import constants as C, mounts, process, syscalls
from labkit.observe import difference, snapshot
from labkit.observe.snapshot import Made, Tree, Visitor, take

def say(value): print("ANSWER " + json.dumps(value), flush=True)

def fork(work, flags=0):
    '''A process that does its work, says so, and waits for its end.'''
    ready, said = os.pipe()
    pid = syscalls.clone3(flags)
    if pid == 0:
        try:
            work()
            os.write(said, b"r")
            while True: signal.pause()
        finally:
            os._exit(1)
    os.close(said)
    assert os.read(ready, 1) == b"r"
    os.close(ready)
    return pid

def space(kind, pid="self"): return os.stat(f"/proc/{pid}/ns/{kind}").st_ino

def noise(stop):
    '''Short-lived processes in namespaces of their own, as many as there is time for.'''
    while not stop.is_set():
        subprocess.run(["unshare", "-m", "-n", "-p", "-f", "sh", "-c", "mount -t tmpfs noise /mnt; ip link set lo up"])
"""


def inside(program: str, timeout: float = 60) -> Any:
    """Run a program as process 1 of a machine of its own; what it gave to say()."""
    words = [*UNSHARE, sys.executable, "-c", PRELUDE + textwrap.dedent(program)]
    done = subprocess.run(words, cwd=TREE, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    (answer,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return json.loads(answer.removeprefix("ANSWER "))


def test_exactly_the_changes_of_a_tree_on_a_busy_machine() -> None:
    """Unshare, mount a tmpfs, start sleep: those changes, and nothing of what others do meanwhile."""
    words, changes, gone = inside("""
        other = os.fork()
        if other == 0:
            noise(threading.Event())
        # The noise is a sibling of the tree's root.
        (ready, said), (start, go) = os.pipe(), os.pipe()
        root = os.fork()
        if root == 0:
            os.read(start, 1)
            syscalls.call("unshare", C.CLONE_NEWNS | C.CLONE_NEWPID | C.CLONE_NEWUTS)
            mounts.mount("mine", "/mnt", "tmpfs")
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "1000"])
            os.write(said, b"r")
            while True: signal.pause()
        before = take(Tree(root))
        os.write(go, b"g"); os.read(ready, 1)
        while True:
            after = take(Tree(root))
            if "sleep" in [one.name for one in after.processes.values()]: break
        os.kill(max(after.processes), signal.SIGKILL); os.kill(root, signal.SIGKILL); os.waitpid(root, 0)
        # Its orphan is process 1's, and dead.
        changes = difference.compare(before, after)
        say([difference.words(changes), changes, difference.words(difference.compare(after, take(Tree(root))))])
    """)
    assert [(sign, kind, name.partition(" ")[0]) for sign, kind, name, _ in changes if "namespace" not in kind] == [
        ("+", "mount", "/mnt"),
        ("+", "process", "sleep"),
        ("~", "process", Path(sys.executable).name),
    ]
    assert [kind for sign, kind, _, _ in changes if "namespace" in kind and sign == "+"] == [
        "mount namespace", "uts namespace", "pid namespace",
    ]  # fmt: skip
    assert words.startswith("1 mount, 1 mount namespace, 1 uts namespace, 1 pid namespace, 1 process: pid 1 inside, ")
    assert gone == "gone: 1 mount namespace, 1 uts namespace, 1 pid namespace, 2 processes"


def test_a_pivoted_root_for_real() -> None:
    """A process that got a root of its own: one mount came, and the copy of the machine's tree went as one."""
    changes = inside("""
        def work():
            mounts.mount("root", "/mnt", "tmpfs")
            mounts.pivot("/mnt")
        before = take()
        fork(work, C.CLONE_NEWNS)
        say(difference.compare(before, take()))
    """)
    seen = [(sign, kind, name) for sign, kind, name, _ in changes if kind.startswith("mount") and "space" not in kind]
    assert seen == [("+", "mount", "/"), ("-", "mount tree", "/")]


def test_an_orphan_stays_in_the_tree_of_its_subreaper() -> None:
    """A process whose parent ended belongs to the tree when a subreaper below the root took it, else not."""
    kept, lost = inside("""
        def family():
            # The middle one ends at once; the grandchild stays.
            read, write = os.pipe()
            if os.fork() == 0:
                if os.fork() == 0:
                    os.write(write, os.getpid().to_bytes(4, "big"))
                    while True: signal.pause()
                os._exit(0)
            os.wait()
            os.read(read, 4)
        def reaping():
            syscalls.call("prctl", C.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            family()
        first, second = fork(reaping), fork(family)
        say([len(take(Tree(first)).processes), len(take(Tree(second)).processes)])
    """)
    assert (kept, lost) == (2, 1)


def test_a_tree_owns_what_nobody_outside_holds() -> None:
    """A namespace with a member outside is not the tree's; its table is kept for comparisons alone."""
    spaces, mounts, networks, origin = inside("""
        child = fork(lambda: None, C.CLONE_NEWNET | C.CLONE_NEWUTS)
        read, write = os.pipe()
        other = os.fork()
        if other == 0:
            fd = os.open(f"/proc/{child}/ns/uts", os.O_RDONLY)
            syscalls.call("setns", fd, 0); os.close(fd)
            os.write(write, b"r")
            while True: signal.pause()
        os.read(read, 1)
        seen = take(Tree(child))
        say([[key[0] for key in seen.namespaces], len(seen.mounts),
             [key == space("net", child) for key in seen.networks], list(seen.origins) == [space("mnt")]])
    """)
    assert (spaces, mounts, networks, origin) == (["net"], 0, [True], True)


def test_a_guest_of_the_trees_pid_namespace_is_of_the_tree() -> None:
    """Who enters a container with nsenter has another parent, but ends with the container's process 1."""
    names, kinds = inside("""
        child = fork(lambda: mounts.mount("proc", "/proc", "proc"), C.CLONE_NEWNS | C.CLONE_NEWPID)
        alone = take(Tree(child))
        guest = subprocess.Popen(["nsenter", "-t", str(child), "-m", "-p", "sleep", "1000"])
        while len(take(Tree(guest.pid)).processes) < 2: time.sleep(0.01)
        while "sleep" not in [one.name for one in take(Tree(guest.pid)).processes.values()]: time.sleep(0.01)
        seen = take(Tree(child))
        say([sorted(one.name for one in seen.processes.values()), [list(seen.namespaces), list(alone.namespaces)]])
    """)
    assert names[-1] == "sleep" and len(names) == 2
    assert sorted(kind for kind, _ in kinds[1]) == ["mnt", "pid"]
    # nsenter itself waits outside, in the mount namespace: that one is shared now.
    assert [kind for kind, _ in kinds[0]] == ["pid"]


def test_a_namespace_held_by_the_trees_descriptor_is_the_trees() -> None:
    """A namespace without members, whose only holder is an open file of the tree, is in its snapshot."""
    held, networks = inside("""
        def work():
            inner = fork(lambda: None, C.CLONE_NEWNET)
            os.open(f"/proc/{inner}/ns/net", os.O_RDONLY)
            os.open("/proc/1/ns/net", os.O_RDONLY)  # the machine's own, which is not the tree's
            os.kill(inner, signal.SIGKILL); os.waitpid(inner, 0)
        child = fork(work)
        seen = take(Tree(child))
        say([[[one.kind, one.members, one.files] for one in seen.namespaces.values()], len(seen.networks)])
    """)
    ((kind, members, files),) = held
    assert (kind, members, networks) == ("net", [], 1)
    assert len(files) == 1 and "/fd/" in files[0]


def test_a_tree_that_has_gone_is_empty() -> None:
    """A process that ended has no tree; that is a snapshot, and no error."""
    assert inside("say([len(part) for part in take(Tree(4194000))[:5]])") == [0, 0, 0, 0, 0]


def test_a_process_with_threads_stays_where_it_is() -> None:
    """The networks of others are read by another process; no thread of this one moves, and none is left."""
    same, networks, children = inside("""
        stop = threading.Event()
        threading.Thread(target=stop.wait).start()
        fork_ = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
        own = space("net")
        while space("net", fork_.pid) == own: time.sleep(0.01)
        seen = take()
        where = {os.stat(f"/proc/self/task/{thread}/ns/net").st_ino for thread in os.listdir("/proc/self/task")}
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        stop.set()
        say([where == {own}, len(seen.networks), children == [str(fork_.pid)]])
    """)
    assert (same, networks, children) == (True, 2, True)


def test_a_visitor_holds_nothing_between_questions() -> None:
    """It goes home and closes all: a namespace that it visited ends with its last member; it is in no snapshot."""
    home, held, there, again, left = inside("""
        child = fork(lambda: None, C.CLONE_NEWNET)
        with Visitor() as visitor:
            first = take(visitor=visitor)
            home = space("net", visitor.pid) == space("net")
            fds = [os.readlink(f"/proc/{visitor.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{visitor.pid}/fd")]
            second = take(visitor=visitor)
            there = visitor.pid in second.processes
            os.kill(visitor.pid, signal.SIGKILL)
            again = len(take(visitor=visitor).networks) if not time.sleep(0.1) else 0
            pid = visitor.pid
        say([home, [fd for fd in fds if "net:" in fd or "socket" in fd], there, again, os.path.exists(f"/proc/{pid}")])
    """)
    assert (home, held, there, again, left) == (True, [], False, 2, False)


def test_processes_that_end_meanwhile_are_no_errors() -> None:
    """Snapshots of a machine in which processes with namespaces come and go all the time."""
    taken, torn = inside("""
        stop = threading.Event()
        for _ in range(3):
            if os.fork() == 0:
                noise(stop)
        end, taken, torn = time.monotonic() + 3, 0, 0
        while time.monotonic() < end:
            seen = take(descriptors=True)
            taken += 1
            # Whatever else it missed, what it has hangs together.
            torn += any(pid not in seen.processes for one in seen.namespaces.values() for pid in one.members)
            snapshot.from_json(snapshot.to_json(seen))
        say([taken, torn])
    """)
    assert taken > 5 and torn == 0


def test_without_root_what_is_not_to_be_seen_is_missing() -> None:
    """An ordinary user gets a snapshot: own namespaces and network, of others what /proc shows to all."""
    own, other, networks, tables = inside("""
        child = fork(lambda: None, C.CLONE_NEWNET | C.CLONE_NEWNS)
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        syscalls.call("prctl", C.PR_SET_DUMPABLE, 1, 0, 0, 0)
        seen = take(rules=True, descriptors=True)
        say([sorted(seen.processes[1].namespaces), len(seen.processes[child].namespaces), len(seen.networks),
             len(seen.mounts)])
    """)
    assert {"mnt", "net", "pid", "user"} <= set(own)
    assert (other, networks, tables) == (0, 1, 1)


def test_a_chroot_does_not_hide_the_rest_of_the_table() -> None:
    """The table is read by a member that sees all of it, though another with a lower pid sees less."""
    places = inside("""
        mounts.mount("x", "/mnt", "tmpfs")
        os.mkdir("/mnt/in"); mounts.mount("y", "/mnt/in", "tmpfs")
        def first():
            fork(lambda: None)  # this one stays outside
            os.chroot("/mnt")
        child = fork(first, C.CLONE_NEWNS)
        seen = take()
        say([mount.place for mount in seen.mounts[space("mnt", child)]])
    """)
    assert "/mnt/in" in places and "/proc" in places


def test_cables_with_equal_indices_are_told_apart() -> None:
    """Four namespaces whose cables have the same index at each end: the kernel's numbers say who belongs to whom."""
    indices, ends = inside("""
        pids = [fork(lambda: None, C.CLONE_NEWNET) for _ in range(4)]
        for one, other in ((0, 2), (3, 1)):
            words = f"link add eth0 netns {pids[one]} type veth peer name eth0 netns {pids[other]}"
            subprocess.run(["ip", *words.split()], check=True)
        seen = take()
        spaces = [space("net", pid) for pid in pids]
        links = [seen.networks[inode].links[-1] for inode in spaces]
        say([[[link.index, link.peer] for link in links], [spaces.index(link.peer_network) for link in links]])
    """)
    assert len({tuple(pair) for pair in indices}) == 1
    assert ends == [2, 3, 0, 1]


def test_a_trees_own_cgroup_is_in_its_snapshot() -> None:
    """The cgroup in which nobody else is comes with what is below it; the root, where all others are, does not."""
    alone, above, below, members = inside("""
        import uuid
        from pathlib import Path
        group = mounts.find("cgroup2") / f"test-{uuid.uuid4().hex[:12]}"
        (group / "low").mkdir(parents=True)
        try:
            child, other = fork(lambda: None), fork(lambda: None)
            (group / "cgroup.procs").write_text(str(child))
            name = take(Tree(child)).processes[child].cgroup
            alone = take(Tree(child)).cgroups
            (group / "low/cgroup.procs").write_text(str(other))
            shared = take(Tree(child)).cgroups
            low = take(Tree(other)).cgroups
            say([[path.removeprefix(name) for path in alone], list(shared), [path.removeprefix(name) for path in low],
                 alone[name].members == (child,)])
            for pid in (child, other):
                os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
        finally:
            (group / "low").rmdir(); group.rmdir()
    """)
    assert (alone, above, below, members) == (["", "/low"], [], ["/low"], True)


def test_what_labkit_made_is_what_its_ledger_lists(tmp_path: Path) -> None:
    """Of a busy machine: the process of the ledger and its namespaces, its link with ports, and nothing else."""
    found = inside(f"""
        os.environ["LABKIT_RUN"] = {str(tmp_path / "run")!r}
        from labkit.kernel import ledger
        nothing = take(Made())
        mine = fork(lambda: None, C.CLONE_NEWNET | C.CLONE_NEWPID)
        fork(lambda: None, C.CLONE_NEWNET)
        book = ledger.Ledger("box")
        book.record("process", pid=mine, start=process.start_time(mine))
        book.record("process", pid=1, start=12345)  # an earlier one with a pid that came back
        book.record("link", name="lab0")
        for words in ("link add lab0 type bridge", "link add other0 type bridge", "link set lab0 up",
                      "link add port0 type veth peer name eth0 netns " + str(mine), "link set port0 master lab0",
                      "address add 192.0.2.1/24 dev lab0", "link set other0 up",
                      "address add 198.51.100.1/24 dev other0"):
            subprocess.run(["ip", *words.split()], check=True)
        titled = fork(lambda: process.set_title("labkit:step"))
        seen = take(Made())
        own = seen.networks[space("net")]
        say([sum(map(len, nothing[:5])), sorted(seen.processes) == sorted([mine, titled]),
             sorted(kind for kind, _ in seen.namespaces), [link.name for link in own.links],
             [way.to for way in own.routes], len(seen.networks)])
    """)
    nothing, processes, kinds, links, routes, networks = found
    assert (nothing, processes, kinds) == (0, True, ["net", "pid"])
    assert sorted(links) == ["lab0", "port0"]
    assert "198.51.100.0/24" not in routes and "192.0.2.0/24" in routes
    assert networks == 2


def test_the_benchmark_says_of_each_aim_whether_it_was_met() -> None:
    """`python -m bench.observe` prints a median for each aim, and its status is 1 when one was missed.

    How fast it is, is measured on a quiet machine: `make bench`.
    """
    words = [sys.executable, "-m", "bench.observe", "--rounds", "3"]
    done = subprocess.run(words, cwd=TREE, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("median") == done.stdout.count("aim") == 4, done.stdout + done.stderr
    assert done.returncode == int("MISSED" in done.stdout)


def test_a_remembered_survey_is_the_survey() -> None:
    """Threads of the kernel are read once; everybody else each time, so that a changed name is seen."""
    remembered: processes.Remembered = {}
    child = subprocess.Popen(["sh", "-c", "read line; exec sleep 1000"], stdin=subprocess.PIPE)
    try:
        assert processes.survey(remembered)[child.pid].name == "sh"
        assert child.stdin is not None
        child.stdin.write(b"on\n")
        child.stdin.flush()
        until = time.monotonic() + 20
        while processes.survey(remembered)[child.pid].name != "sleep" and time.monotonic() < until:
            time.sleep(0.01)
        assert processes.survey(remembered)[child.pid].name == "sleep"
        assert all(stat.flags & processes.PF_KTHREAD for stat in remembered.values())
        assert {pid for pid, _ in remembered} <= set(processes.survey())
    finally:
        child.kill()
        child.communicate()
