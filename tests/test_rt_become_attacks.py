"""Attacks on the way to the program: each is tried, and fails; where it can be had, it is seen to work unprotected."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rt_become_ground import NONE, become, child, config

from labkit.errors import Refused
from labkit.kernel import constants as C
from labkit.kernel import mounts, namespaces
from labkit.kernel.syscalls import call
from labkit.runtime.become import drop, execute, sealed, settle
from labkit.runtime.become.ready import Ready, ready

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes user and root: needs root")]

TREE = Path(__file__).resolve().parent.parent
PR_GET_DUMPABLE = 3


@pytest.mark.parametrize("script", ["", "#!/proc/self/exe\n", "#! /proc/self/exe -x\n"])
def test_the_runtime_itself_cannot_be_started(tmp_path: Path, script: str) -> None:
    """CVE-2019-5736: /proc/self/exe as the program, or as a script's interpreter, is refused."""
    file = tmp_path / "evil"
    if script:
        file.write_text(script)
        file.chmod(0o755)
    else:
        file.symlink_to("/proc/self/exe")
    said = become(config(str(file)))
    assert said.startswith("Refused 126")
    assert "CVE-2019-5736" in said


# What code that runs from the runtime's own file does: keep a door to it, leave it, and write.
ATTACK = """
import os, sys
sys.path.insert(0, {tree!r})
from labkit.runtime.become import sealed
def fails():
    raise PermissionError(13, "vm.memfd_noexec")
if {how!r} == "mount":
    sealed.copied = fails
if {how!r} != "nothing":
    sealed.seal(["-S", *sys.orig_argv[2:]])
    assert sealed.is_sealed() and sealed.MARK not in os.environ
else:
    assert not sealed.is_sealed()
door = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(door, True)
os.execv("/bin/sh", ["sh", "-c", f"echo owned >/proc/self/fd/{{door}} && echo written"])
"""


@pytest.mark.parametrize(
    ("how", "words"), [("nothing", ""), ("mount", "Read-only file system"), ("memory", "not permitted")]
)
def test_the_interpreters_file_cannot_be_written_from_inside(tmp_path: Path, how: str, words: str) -> None:
    """CVE-2019-5736: through a door kept open to /proc/self/exe; unprotected, the very same attack succeeds."""
    interpreter = tmp_path / "python3"
    shutil.copy(os.path.realpath(sys.executable), interpreter)
    before = interpreter.read_bytes()
    done = subprocess.run([interpreter, "-S", "-c", ATTACK.format(tree=str(TREE), how=how)],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    if how == "nothing":
        assert done.stdout == "written\n" and interpreter.read_bytes() == b"owned\n"
    else:
        assert (done.stdout, interpreter.read_bytes() == before) == ("", True), done.stderr
        assert words in done.stderr


def test_a_start_that_stays_writable_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """No endless restarting where a read-only file turns out to be writable."""
    monkeypatch.setenv(sealed.MARK, str(os.getpid()))
    monkeypatch.setattr(sealed, "is_sealed", lambda: False)
    with pytest.raises(Refused, match="CVE-2019-5736"):
        sealed.seal([])


def in_a_root(tmp_path: Path, work: Callable[[], object]) -> object:
    """Do `work` in a child whose root is a folder with a /proc, while descriptor 9 is the machine's `outside`."""
    inside, outside = tmp_path / "root", tmp_path / "outside"
    (inside / "proc").mkdir(parents=True)
    outside.mkdir()

    def enter() -> object:
        call("unshare", C.CLONE_NEWNS)
        mounts.propagate("/", "rprivate")
        mounts.mount("proc", inside / "proc", "proc")
        os.dup2(os.open(outside, os.O_RDONLY), 9, inheritable=True)
        os.chroot(inside)
        os.chdir("/")
        return work()

    return child(enter)


def prepared(cwd: str) -> Ready:
    return ready(config("true", cwd=cwd, capabilities=NONE))


@pytest.mark.parametrize("cwd", ["/proc/self/fd/9", "/proc/self/fd/9/..", "/proc/thread-self/fd/9/../.."])
def test_a_folder_that_leads_out_is_refused(tmp_path: Path, cwd: str) -> None:
    """CVE-2024-21626: through a descriptor of the machine's that was left open, cwd is outside of the root."""
    one = prepared(cwd)
    said = str(in_a_root(tmp_path, lambda: drop.drop(one)))
    assert said.startswith("Refused 1 process.cwd") and "CVE-2024-21626" in said


def test_no_folder_is_made_outside(tmp_path: Path) -> None:
    """CVE-2024-21626, writing: a missing cwd behind such a link is not made on the machine before it is refused."""
    one = prepared("/proc/self/fd/9/made/by/root")
    said = str(in_a_root(tmp_path, lambda: drop.drop(one)))
    assert said.startswith("Refused 1 process.cwd")
    assert os.listdir(tmp_path / "outside") == []


def test_a_folder_beside_dots_is_made_inside(tmp_path: Path) -> None:
    """.. above the root is the root: what is missing is made in the container."""
    one = prepared("/a/../../../b/c")
    assert in_a_root(tmp_path, lambda: [drop.drop(one), os.getcwd()]) == [None, "/b/c"]
    assert (tmp_path / "root/b/c").is_dir()


def test_closed_first_there_is_nothing_to_lead_out(tmp_path: Path) -> None:
    """CVE-2024-21626: after close_all, the link is not there."""
    one = prepared("/proc/self/fd/9")
    assert "No such file" in str(in_a_root(tmp_path, lambda: [execute.close_all(), drop.drop(one)]))


def test_an_image_with_a_false_proc_keeps_no_power(tmp_path: Path) -> None:
    """Files of an image that say: there is one capability, and groups cannot be left; nobody asks them."""
    for name, text in {"sys/kernel/cap_last_cap": "0", "self/setgroups": "deny", "self/status": "CapPrm:\t0"}.items():
        (tmp_path / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / name).write_text(text)
    one = prepared("/")

    def work() -> list[object]:
        os.setgroups([5, 6])
        os.chroot(tmp_path)
        drop.drop(one)
        bounding = [number for number in range(one.highest + 1) if call("prctl", C.PR_CAPBSET_READ, number, 0, 0, 0)]
        return [os.getgroups(), bounding]

    assert child(work) == [[], []]


def test_the_process_stays_unreadable_until_execve() -> None:
    """CVE-2016-9962: a change of user does not make its memory and its /proc/PID/exe readable for the container."""
    one = ready(config("true", user={"uid": 1234, "gid": 1234}))
    assert child(lambda: [drop.drop(one), call("prctl", PR_GET_DUMPABLE, 0, 0, 0, 0)]) == [None, 0]


@pytest.mark.parametrize("field", ["apparmorProfile", "selinuxLabel", "oomScoreAdj"])
def test_a_false_proc_swallows_no_label(tmp_path: Path, field: str) -> None:
    """CVE-2025-52881: files under the names of /proc/self, in a mount namespace joined by its path, are not written."""
    wanted = {"oomScoreAdj": 7}.get(field, "a-label")
    one = ready(config("true", **{field: wanted}))
    files = [tmp_path / "self/attr/apparmor/exec", tmp_path / "self/attr/exec", tmp_path / "self/oom_score_adj"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0")

    def work() -> None:
        namespaces.leave(["mnt"])
        mounts.propagate("/", "rprivate")
        mounts.mount(str(tmp_path), "/proc", None, ["bind"])
        settle.early(one)

    assert child(work).startswith("Refused 1 /proc is no proc file system here")
    assert {file.read_text() for file in files} == {"0"}
