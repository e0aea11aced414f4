"""The stage child in the kernel: namespaces, the fence, the record against strace, and each call made to fail."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from runtime_ground import until

from labkit.errors import LabError
from labkit.kernel import constants as C
from labkit.kernel import mounts, namespaces
from labkit.kernel.syscalls import call, clone3
from labkit.lessons import Child, Hung, in_child, tree
from labkit.observe import census

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]


def inside(pid: int) -> list[int]:
    """A process's number in each pid namespace, the outermost first (NSpid)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [int(word) for line in lines if line.startswith("NSpid:") for word in line.split()[1:]]


def root_of_ones_own(folder: str) -> list[str]:
    """A launcher as a lesson has it: namespaces, a tmpfs as root with /proc, pivot_root; what is then seen."""
    call("unshare", C.CLONE_NEWNS | C.CLONE_NEWPID | C.CLONE_NEWUTS)
    mounts.propagate("/", "rprivate")
    call("sethostname", "inner", 5)
    mounts.mount("tmpfs", folder, "tmpfs")
    Path(folder, "proc").mkdir()
    mounts.pivot(folder)
    pid = os.fork()
    if pid == 0:
        mounts.mount("proc", "/proc", "proc")
        time.sleep(1000)
    until(lambda: Path("/proc/1").exists())
    return sorted(os.listdir("/"))


def test_stages_go_on_in_what_an_earlier_one_has_left(tmp_path: Path) -> None:
    """After unshare and pivot_root in three stages: seen from outside, and the machine has none of it."""
    hostname = os.uname().nodename
    with Child("walk") as one:
        one.do(namespaces.leave, ["uts", "mnt", "ipc"], stage="unshare")
        one.do(call, "sethostname", "inner", 5, stage="name")
        for kind in ("uts", "mnt", "ipc"):
            assert namespaces.inode(kind, one.pid) != namespaces.inode(kind)
        assert namespaces.inode("net", one.pid) == namespaces.inode("net")
        one.do(mounts.propagate, "/", "rprivate", stage="private")
        one.do(mounts.mount, "tmpfs", str(tmp_path), "tmpfs", stage="mount")
        one.do(mounts.pivot, str(tmp_path), stage="pivot")
        assert one.do(lambda: (os.listdir("/"), os.uname().nodename)) == ([], "inner")
        with pytest.raises(FileNotFoundError, match="missing"):
            one.do(os.stat, "/missing", stage="error after the pivot")
        assert len(Path(f"/proc/{one.pid}/mountinfo").read_text().splitlines()) == 1
    assert os.uname().nodename == hostname and not mounts.is_mounted(tmp_path)


def test_a_module_that_is_missing_after_a_pivot_is_named(tmp_path: Path) -> None:
    """And imports= has it there in time."""

    def away(folder: str) -> None:
        mounts.propagate("/", "rprivate")
        mounts.mount("tmpfs", folder, "tmpfs")
        mounts.pivot(folder)

    def late() -> str:
        import wave

        return wave.__name__

    with Child("late") as one:
        one.do(away, str(tmp_path))
        with pytest.raises(ModuleNotFoundError):
            one.do(late)
    with Child("late", imports=["wave"]) as one:
        one.do(away, str(tmp_path))
        assert one.do(late) == "wave"


def test_after_a_new_pid_namespace_everything_still_works() -> None:
    """Programs are numbered as seen from here, the first is process 1 inside; stages and prints go on."""
    with Child("pids") as one:
        one.do(namespaces.leave, ["pid"], stage="unshare")
        first, second = one.spawn("sleep", "1000"), one.spawn("sleep", "1001")
        assert inside(first) == [first, 1] and inside(second) == [second, 2]
        assert one.do(os.getpid) == one.pid and inside(one.pid) == [one.pid]

        def forked() -> int:
            pid = os.fork()
            if pid == 0:
                return 0  # comes back from the function as process 3 of the new namespace
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        assert one.do(forked) == 0 and one.do(os.getpid) == one.pid
    until(lambda: tree.describe(first) is None)


def test_process_1_that_has_ended_is_explained() -> None:
    """No process can be made any more in a pid namespace whose process 1 has ended: fork gives ENOMEM."""
    with Child("dead") as one:
        one.do(namespaces.leave, ["pid"], stage="unshare")
        pid = one.spawn("true")
        until(lambda: tree.describe(pid) is None)
        with pytest.raises(OSError, match="memory") as caught:
            one.spawn("sleep", "1000")
        assert "process 1" in "".join(caught.value.__notes__) and "Child('dead')" in "".join(caught.value.__notes__)


def test_a_stage_in_a_user_namespace_is_still_watched() -> None:
    """Without any right outside: values, prints and the record come back, and a hang is found and ended."""

    def nobody() -> int:
        call("unshare", C.CLONE_NEWUSER | C.CLONE_NEWNS)
        return os.getuid()

    with Child("user") as one:
        assert one.do(nobody) == 65534 and one.do(call, "gettid") == one.pid and len(one.calls) == 2
        with pytest.raises(Hung) as caught:
            one.do(time.sleep, 1000, limit=0.3)
        assert caught.value.syscall == "clock_nanosleep"


def test_a_second_unshare_of_the_pid_namespace_is_explained() -> None:
    """The kernel's bare EINVAL, and why; any other kind simply makes another namespace."""
    with Child("again") as one:
        one.do(namespaces.leave, ["pid", "uts"], stage="unshare")
        before = namespaces.inode("uts", one.pid)
        one.do(namespaces.leave, ["uts"], stage="unshare")
        assert namespaces.inode("uts", one.pid) != before
        with pytest.raises(OSError) as caught:
            one.do(namespaces.leave, ["pid"], stage="unshare")
        assert caught.value.errno == errno.EINVAL
        assert "has unshared its pid namespace already" in "".join(caught.value.__notes__)
        assert "next:" in "".join(caught.value.__notes__)


def test_the_fence_keeps_mounts_from_the_machine(tmp_path: Path) -> None:
    """A mount goes no further than the child; without the fence it is made on this machine."""
    with Child("fenced") as one:
        assert one.fenced
        one.do(mounts.mount, "tmpfs", str(tmp_path), "tmpfs")
        assert str(tmp_path) in Path(f"/proc/{one.pid}/mountinfo").read_text()
        assert not mounts.is_mounted(tmp_path)
    with Child("open", fence=False) as one:
        assert not one.fenced and namespaces.inode("mnt", one.pid) == namespaces.inode("mnt")
        one.do(mounts.mount, "tmpfs", str(tmp_path), "tmpfs")
        assert mounts.is_mounted(tmp_path)
        one.do(mounts.unmount, str(tmp_path))


@in_child
def propagation(shared: bool) -> tuple[list[str], bool]:
    """In a mount namespace whose root is shared or not: how a child's root is, and whether its mount comes back."""
    mounts.propagate("/", "rprivate")
    if shared:
        mounts.propagate("/", "rshared")
    with Child("within") as one:
        one.do(mounts.mount, "tmpfs", "/mnt", "tmpfs")
        line = next(line for line in Path(f"/proc/{one.pid}/mountinfo").read_text().splitlines()
                    if line.split(" ")[4] == "/")  # fmt: skip
        return [word.partition(":")[0] for word in line.partition(" - ")[0].split(" ")[6:]], mounts.is_mounted("/mnt")


def test_in_the_fence_shared_is_shared_as_on_the_machine() -> None:
    """A learner meets the machine's propagation, yet nothing of it comes out."""
    assert propagation(True) == (["shared", "master"], False)
    assert propagation(False) == ([], False)


def test_an_orphan_in_a_new_pid_namespace_ends_too() -> None:
    """clone3 into new namespaces, the inner process 1 forks on, all leave their session."""

    def deep() -> None:
        if clone3(C.CLONE_NEWPID | C.CLONE_NEWNET) == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                time.sleep(1000)
            time.sleep(1000)

    with Child("deep", leaves=True) as one:
        one.do(deep)
        until(lambda: len(tree.below(one.pid)) == 2)
        below = tree.below(one.pid)
        assert [len(inside(pid)) for pid in below] == [2, 2]
    assert sorted(left.pid for left in one.left) == sorted(below) and not any(map(tree.describe, below))


def test_the_record_is_what_strace_saw() -> None:
    """Every call that labkit made in a stage, in the order and with the results that strace reports."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is missing: make test installs it")

    def work() -> None:
        call("unshare", C.CLONE_NEWNS | C.CLONE_NEWUTS)
        mounts.propagate("/", "rprivate")
        call("sethostname", "inner", 5)
        mounts.mount("tmpfs", "/mnt", "tmpfs", ["nosuid", "size=1m"])
        for target in ("/mnt", "/no/such"):
            try:
                mounts.unmount(target)
            except OSError:
                pass
        pid = os.fork()
        if pid == 0:
            call("sethostname", "forked", 6)
            os._exit(0)
        os.waitpid(pid, 0)
        call("setdomainname", "d", 1)

    names = "unshare,mount,umount2,sethostname,setdomainname,pivot_root,setns,clone3"
    with Child("traced") as one:
        tracer = subprocess.Popen([strace, "-qq", "-f", "-e", f"trace={names}", "-e", "signal=none",
                                   "-p", str(one.pid)], stderr=subprocess.PIPE, text=True)  # fmt: skip
        status = Path(f"/proc/{one.pid}/status")
        until(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text())
        one.do(work)
        calls = [(made.name, made.result) for made in one.calls]
    _, said = tracer.communicate(timeout=20)
    seen = [
        (found[1], int(found[2]))
        for line in said.splitlines()
        if (found := re.match(r"(?:\[pid +\d+\] )?(\w+)\(.*\) += (-?\d+)", line))
    ]
    assert calls == seen and len(seen) == 8, said


def test_every_call_of_a_stage_fails_once_and_leaves_nothing(tmp_path: Path) -> None:
    """The fence's calls too: each failure comes back as an OSError or LabError, and the census is the one before."""
    before = census.take()
    with Child("whole", leaves=True) as one:
        seen = one.do(root_of_ones_own, str(tmp_path))
        total = len(one.setup.calls) + len(one.calls)
    assert seen == ["proc"] and total > 8
    for number in range(1, total + 1):
        with pytest.raises((OSError, LabError, Hung)), Child("whole", leaves=True, fail=(number, errno.EIO)) as one:
            one.do(root_of_ones_own, str(tmp_path), limit=3.0)
        assert census.difference(before, census.take()) == [], number


def test_a_stage_that_hangs_in_namespaces_leaves_nothing(tmp_path: Path) -> None:
    """Mounts, a pid namespace, a forked process 1: the end of the tree is the end of them all."""
    before = census.take()

    def hang(folder: str) -> None:
        root_of_ones_own(folder)
        time.sleep(1000)

    with Child("hung") as one, pytest.raises(Hung):
        one.do(hang, str(tmp_path), limit=1.0)
    assert census.difference(before, census.take()) == []
