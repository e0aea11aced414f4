"""The one module that makes system calls: numbers, errors, refusals, recording, and the calls with structures."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit.kernel import capabilities, constants, loopback, mounts, namespaces, process, syscalls
from labkit.kernel.syscalls import call, clone3, openat2, recording

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")


@pytest.mark.parametrize("name", ["unshare", "setns", "clone3"])
def test_a_threaded_process_is_refused(name: str) -> None:
    """With a second thread these say why, before the kernel is asked; the others still work."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with recording() as calls, pytest.raises(RuntimeError, match=r"2 threads[\s\S]*fresh single-threaded"):
            call(name, 0, 0)
        assert calls == []
        assert call("gettid") == threading.get_native_id()
    finally:
        stop.set()
        thread.join()


def test_arguments_left_out_are_zero() -> None:
    """A learner's fsconfig without its last argument is refused for what is wrong with it, and not at random."""
    if os.geteuid() != 0:
        pytest.skip("fsopen needs root")
    for _ in range(3):
        context = call("fsopen", "tmpfs", constants.FSOPEN_CLOEXEC)
        try:
            # Between two calls the registers hold other things.
            call("fsconfig", context, constants.FSCONFIG_SET_STRING, "size", "1m")
            call("fsconfig", context, constants.FSCONFIG_SET_STRING, "mode", "700")
        finally:
            os.close(context)


def test_the_kernel_would_indeed_refuse() -> None:
    """The refusal is not our invention: unshare(CLONE_NEWUSER) in a threaded process is EINVAL."""
    program = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000), ctypes.get_errno())
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert said.split() == ["-1", str(errno.EINVAL)]


def test_an_error_names_the_call_and_its_arguments() -> None:
    """errno, the call as one would write it, and the kernel's words."""
    with pytest.raises(FileNotFoundError) as caught:
        call("umount2", "/no/such/place", 2)
    assert 'umount2("/no/such/place", MNT_DETACH): No such file or directory' in str(caught.value)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_text_with_a_nul_is_refused(kind: type, tmp_path: Path) -> None:
    """As Python's os does: cut at the NUL it would name another file, one that is there."""
    (tmp_path / "file").touch()
    with recording() as calls, pytest.raises(ValueError, match="embedded null byte"):
        openat2(-100, kind(f"{tmp_path}/file\0name"), os.O_RDONLY)
    assert calls == []


def test_bytes_are_buffers_and_may_hold_nuls(tmp_path: Path) -> None:
    """A struct open_how of 24 bytes, most of them 0, arrives whole."""
    how = struct.pack("=QQQ", os.O_DIRECTORY | os.O_CLOEXEC, 0, 0)
    os.close(call("openat2", -100, tmp_path, how, len(how)))


def test_unknown_calls_and_architectures_are_errors() -> None:
    """Never a guess."""
    for arguments in (("no_such_call",), ("mount", "riscv64")):
        with pytest.raises(OSError) as caught:
            syscalls.number(*arguments)
        assert caught.value.errno == errno.ENOSYS
    assert syscalls.number("mount", "aarch64") == 40 and syscalls.number("mount", "x86_64") == 165


def test_a_recording_holds_what_was_asked_and_answered() -> None:
    """In order, failures too, and nothing of what came before or after."""
    call("gettid")
    with recording() as calls, pytest.raises(OSError):
        call("gettid")
        call("umount2", "/no/such", 0)
    call("gettid")
    assert [one.name for one in calls] == ["gettid", "umount2"]
    assert str(calls[1]) == 'umount2("/no/such", 0) = -1 ENOENT' and calls[0].at <= calls[1].at


def test_a_call_is_retried_after_a_signal(tmp_path: Path) -> None:
    """EINTR of a blocking call is not seen by the caller (here: opening a FIFO that nobody writes yet)."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = """
import os, signal, sys, time
from labkit.kernel.syscalls import openat2
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
print("go", flush=True)
print(os.read(openat2(-100, sys.argv[1], os.O_RDONLY), 5))
"""
    with subprocess.Popen([sys.executable, "-c", program, str(fifo)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "go\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=0.4)
        fifo.write_text("hello")
        assert child.communicate(timeout=10)[0] == "b'hello'\n"


def test_openat2_keeps_a_path_beneath_its_folder(tmp_path: Path) -> None:
    """.. and absolute links are resolved inside (IN_ROOT) or refused (BENEATH: EXDEV); NO_SYMLINKS is ELOOP."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("inner")
    (tmp_path / "root/link").symlink_to("/etc/passwd")
    (tmp_path / "root/up").symlink_to("../../../../etc/passwd")
    top = os.open(tmp_path / "root", os.O_PATH)
    try:
        for path in ("link", "up", "/etc/passwd", "../../etc/passwd"):
            fd = openat2(top, path, os.O_RDONLY, resolve=constants.RESOLVE_IN_ROOT)
            assert os.read(fd, 9) == b"inner" and not os.get_inheritable(fd)
            os.close(fd)
        for path, resolve, code in (
            ("link", constants.RESOLVE_BENEATH, errno.EXDEV),
            ("up", constants.RESOLVE_BENEATH, errno.EXDEV),
            ("link", constants.RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ):
            with pytest.raises(OSError) as caught:
                openat2(top, path, os.O_RDONLY, resolve=resolve)
            assert caught.value.errno == code
    finally:
        os.close(top)


@pytest.mark.root
@ROOT
def test_clone3_makes_the_namespaces_that_it_is_told() -> None:
    """The child is in new pid and uts namespaces, as process 1, and in the old ones otherwise."""
    reading, writing = os.pipe()
    pid = clone3(constants.CLONE_NEWPID | constants.CLONE_NEWUTS)
    if pid == 0:
        seen = [os.getpid(), *(namespaces.inode(kind) for kind in ("uts", "net"))]
        os.write(writing, repr(seen).encode())
        os._exit(7)
    number, uts, net = eval(os.read(reading, 200))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    os.close(reading)
    os.close(writing)
    assert (number, net) == (1, namespaces.inode("net")) and uts != namespaces.inode("uts")


def test_a_pidfd_never_hits_the_wrong_process() -> None:
    """kill() with another start time does nothing and says so; a process that is gone is no error."""
    with subprocess.Popen(["sleep", "60"]) as child:
        start = process.start_time(child.pid)
        assert start and not process.kill(child.pid, start + 1) and child.poll() is None
        assert process.kill(child.pid, start, signal.SIGTERM) and child.wait(timeout=10) == -15
    assert not process.kill(child.pid, start) and process.start_time(2**22 - 1) is None


def test_a_name_with_brackets_does_not_confuse_the_start_time(tmp_path: Path) -> None:
    """The name in /proc/PID/stat may hold spaces and brackets."""
    program = tmp_path / "a ) (b) 1"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        assert process.parent(child.pid) == os.getpid() and process.is_alive(child.pid, process.start_time(child.pid))
        child.kill()


def test_capability_masks_and_names_are_inverse() -> None:
    """Every capability of this kernel has a name, capsh agrees on each, and bits/names are each other's inverse."""
    everything = list(capabilities.NUMBERS)[: capabilities.last() + 1]
    assert len(everything) == capabilities.last() + 1
    assert capabilities.names(capabilities.bits(everything)) == everything
    decoded = subprocess.run(["capsh", f"--decode={2 ** len(everything) - 1:x}"], capture_output=True, text=True).stdout
    assert decoded.strip().partition("=")[2].split(",") == [name.lower() for name in everything]


@pytest.mark.root
@ROOT
def test_dropped_capabilities_do_not_come_back() -> None:
    """Root gets back by execve what the bounding set still holds (CAP_CHOWN here), and nothing beyond."""
    program = """
import os
from labkit.kernel import capabilities
capabilities.limit(["CAP_KILL", "CAP_CHOWN"])
capabilities.set_exactly(["CAP_KILL"], ["CAP_KILL"], [], [])
os.execvp("grep", ["grep", "^Cap", "/proc/self/status"])
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    masks = {line[:6]: int(line.split()[1], 16) for line in said.splitlines()}
    both = 1 << 5 | 1
    assert masks == {"CapInh": 0, "CapPrm": both, "CapEff": both, "CapBnd": both, "CapAmb": 0}


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("unshare", (constants.CLONE_NEWNS | constants.CLONE_NEWPID,), "unshare(CLONE_NEWNS|CLONE_NEWPID)"),
        ("unshare", (0x80000000,), "unshare(0x80000000)"),
        ("unshare", (0x80000000 | constants.CLONE_NEWNS,), "unshare(CLONE_NEWNS|0x80000000)"),
        ("mount", (None, "/", None, constants.MS_REC | constants.MS_PRIVATE, None),
         'mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL)'),
        ("mount", ("a", "/b", "tmpfs", 0, None), 'mount("a", "/b", "tmpfs", 0, NULL)'),
        ("move_mount", (5, "", -100, "/x", constants.MOVE_MOUNT_F_EMPTY_PATH),
         'move_mount(5, "", AT_FDCWD, "/x", MOVE_MOUNT_F_EMPTY_PATH)'),
        ("fsconfig", (5, constants.FSCONFIG_SET_STRING, "source", "x", 0),
         'fsconfig(5, FSCONFIG_SET_STRING, "source", "x", 0)'),
        ("prctl", (constants.PR_CAP_AMBIENT, 4, 0, 0, 0), "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)"),
        ("prctl", (constants.PR_CAP_AMBIENT, 2, 5, 0, 0),
         "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)"),
        ("prctl", (constants.PR_CAPBSET_DROP, 0, 0, 0, 0), "prctl(PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0)"),
        ("prctl", (constants.PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)"),
        ("open_tree", (5, "", constants.OPEN_TREE_CLONE | constants.OPEN_TREE_CLOEXEC | constants.AT_EMPTY_PATH),
         'open_tree(5, "", OPEN_TREE_CLONE|AT_EMPTY_PATH|OPEN_TREE_CLOEXEC)'),
        ("socket", (2, 2 | constants.SOCK_CLOEXEC, 0), "socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, 0)"),
        ("ioctl", (3, constants.SIOCSIFFLAGS, loopback.Request(b"lo", 9)),
         'ioctl(3, SIOCSIFFLAGS, {ifr_name="lo", ifr_flags=IFF_UP|IFF_LOOPBACK})'),
        ("keyctl", (1, "_ses.x", 0, 0, 0), 'keyctl(KEYCTL_JOIN_SESSION_KEYRING, "_ses.x", 0, 0, 0)'),
        ("openat2", (5, "etc", syscalls.OpenHow(os.O_CLOEXEC | constants.O_PATH, 0, constants.RESOLVE_IN_ROOT), 24),
         'openat2(5, "etc", {flags=O_RDONLY|O_CLOEXEC|O_PATH, resolve=RESOLVE_IN_ROOT}, 0x18)'),
        ("mount_setattr", (5, "", 0, mounts.Attributes(attr_set=1, attr_clr=0x70), 32),
         'mount_setattr(5, "", 0, {attr_set=MOUNT_ATTR_RDONLY, attr_clr=MOUNT_ATTR__ATIME}, 0x20)'),
        ("capset", (capabilities.Header(0x20080522, 0), capabilities.Data(effective0=1 << 5)),
         "capset({version=0x20080522, pid=0}, {effective=CAP_KILL, permitted=0, inheritable=0})"),
        ("clone3", (syscalls.CloneArgs(flags=constants.CLONE_NEWUTS), 88), "clone3({flags=CLONE_NEWUTS}, 0x58)"),
    ],
)  # fmt: skip
def test_flags_and_commands_are_shown_as_words(name: str, arguments: tuple[object, ...], text: str) -> None:
    """As strace shows them; a bit that has no name keeps its number."""
    assert syscalls.describe(name, arguments) == text  # type: ignore[arg-type]
