"""Seccomp filters on a real kernel: each answer is seen by a process of its own that puts a filter on itself."""

from __future__ import annotations

import array
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit.kernel.callnumbers import table
from labkit.kernel.seccomp import listener

TREE = Path(__file__).resolve().parent.parent
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[os.uname().machine]
ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}
BEFORE = """
import ctypes, errno, json, os, signal, socket, sys, threading
from labkit.errors import LabError
from labkit.kernel import process
from labkit.kernel import constants as C
from labkit.kernel.seccomp import compiler, load, profile
from labkit.kernel.syscalls import call, recording
from labkit.kernel.callnumbers import table
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
numbers = table(os.uname().machine)  # asked once: personality(PER_LINUX32) changes the machine's name
def make(name, *arguments):
    "The call's result, or its errno with a minus."
    ctypes.set_errno(0)
    result = libc.syscall(numbers[name], *map(ctypes.c_long, arguments))
    return -ctypes.get_errno() if result == -1 else result
def say(*what):
    print(*what, flush=True)
process.forbid_new_privileges()
given = profile.parse(json.loads(sys.argv[1]))
"""


def child(given: dict[str, Any], text: str, *, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    """A fresh program that knows the profile as `given` and may put it on."""
    return subprocess.Popen(
        [sys.executable, "-c", BEFORE + text, json.dumps(given), *map(str, pass_fds)],
        env={**os.environ, "PYTHONPATH": str(TREE)}, pass_fds=pass_fds, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(given: dict[str, Any], text: str) -> tuple[int, str]:
    """How it ended, and what it said."""
    with child(given, text) as started:
        out, complaint = started.communicate(timeout=30)
    assert started.returncode <= 0, complaint
    return started.returncode, out


def rule(action: str, *names: str, **more: object) -> dict[str, Any]:
    """A profile that lets all pass but these."""
    return {**ALLOW, "syscalls": [{"names": list(names), "action": action, **more}]}


def test_an_errno_is_seen() -> None:
    """The call fails with the number that the profile says; the one beside it does not."""
    given = rule("SCMP_ACT_ERRNO", "getsid", errnoRet=errno.EXDEV)
    status, out = ended(given, "load.install(given)\nsay(make('getsid', 0), make('getpgid', 0) > 0)")
    assert (status, out.split()) == (0, [str(-errno.EXDEV), "True"])


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"])
def test_a_forbidden_call_ends_the_process(action: str) -> None:
    """With SIGSYS, before the call's result is there."""
    status, out = ended(rule(action, "getsid"), "load.install(given)\nsay('before')\nmake('getsid', 0)\nsay('after')")
    assert (status, out) == (-signal.SIGSYS, "before\n")


def test_a_trap_can_be_caught() -> None:
    """TRAP sends SIGSYS: who has a handler goes on."""
    text = """
signal.signal(signal.SIGSYS, lambda number, _: say("caught", number))
load.install(given)
make('getsid', 0)
say("after")
"""
    assert ended(rule("SCMP_ACT_TRAP", "getsid"), text) == (0, f"caught {int(signal.SIGSYS)}\nafter\n")


def test_one_value_of_an_argument_passes() -> None:
    """personality(PER_LINUX32) may be asked for, another persona may not; all 64 bits of the argument count."""
    args = [{"index": 0, "op": "SCMP_CMP_NE", "value": 8}]
    given = rule("SCMP_ACT_ERRNO", "personality", errnoRet=errno.EXDEV, args=args)
    text = "load.install(given)\nsay(make('personality', 8), make('personality', 0), make('personality', 8 | 1 << 40))"
    status, out = ended(given, text)
    assert status == 0
    first, *others = map(int, out.split())
    assert first >= 0 and others == [-errno.EXDEV, -errno.EXDEV]


def test_a_logged_call_is_made() -> None:
    """LOG lets the call pass (a session from outside of the pid namespace is 0)."""
    status, out = ended(rule("SCMP_ACT_LOG", "getsid"), "load.install(given)\nsay(make('getsid', 0) >= 0)")
    assert (status, out) == (0, "True\n")


def test_a_traced_call_without_a_tracer_does_not_exist() -> None:
    """TRACE with nobody who traces: ENOSYS (seccomp(2))."""
    status, out = ended(rule("SCMP_ACT_TRACE", "getsid"), "load.install(given)\nsay(make('getsid', 0))")
    assert (status, out) == (0, f"{-errno.ENOSYS}\n")


def test_an_unknown_number_is_no_such_call() -> None:
    """Above the highest number that the profile names, ENOSYS and not the default EPERM; below, EPERM."""
    names = sorted(name for name, number in table(os.uname().machine).items() if number < 440 and name != "getsid")
    given = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": [NATIVE],
             "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}  # fmt: skip
    text = "load.install(given)\nsay(make('mount_setattr', -1, 0, 0, 0, 0), make('getsid', 0))"
    assert ended(given, text) == (0, f"{-errno.ENOSYS} {-errno.EPERM}\n")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="32-bit numbers with int $0x80 are x86's")
def test_another_architecture_ends_the_thread() -> None:
    """int $0x80 makes a call of 32-bit x86: killed where the profile does not list it, made where it does."""
    text = """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
code.write(bytes.fromhex("53 b8 14 00 00 00 cd 80 5b c3"))
getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
load.install(given)
say("before")
say(getpid() == os.getpid())
"""
    probe = 'import os\nsay("ia32" if os.path.exists("/proc/sys/abi/vsyscall32") else "none")'
    if ended(ALLOW, probe) != (0, "ia32\n"):
        pytest.skip("this kernel has no 32-bit calls (CONFIG_IA32_EMULATION)")
    assert ended(ALLOW, text) == (-signal.SIGSYS, "before\n")
    assert ended({**ALLOW, "architectures": ["SCMP_ARCH_X86"]}, text) == (0, "before\nTrue\n")


def test_a_filter_outlives_execve_and_two_are_both_asked() -> None:
    """A second filter that allows takes nothing back, and a program started afterwards has both."""
    text = """
load.install(given)
load.install(profile.parse({"defaultAction": "SCMP_ACT_ALLOW"}))
say(make('getsid', 0))
os.execv(sys.executable, [sys.executable, "-c", "import os\\ntry: os.getsid(0)\\nexcept OSError as e: print(e.errno)\\n"
    "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('Seccomp_filters')])"])
"""
    status, out = ended(rule("SCMP_ACT_ERRNO", "getsid", errnoRet=errno.EXDEV), text)
    assert (status, out.splitlines()) == (0, [f"-{errno.EXDEV}", str(errno.EXDEV), "['2']"])


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up being root, so needs to be it")
def test_without_root_no_new_privs_comes_first() -> None:
    """EACCES and the way out; with no_new_privs it works."""
    text = """
os.setgid(65534)
os.setuid(65534)
try:
    load.install(given)
except LabError as error:
    say(error)
process.forbid_new_privileges()
load.install(given)
say(make('getsid', 0))
"""
    given = rule("SCMP_ACT_ERRNO", "getsid")
    with_new = BEFORE.replace("process.forbid_new_privileges()\n", "")
    words = [sys.executable, "-c", with_new + text, json.dumps(given)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(TREE)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot put a seccomp filter" in done.stdout and "errno 13" in done.stdout
    assert "forbid_new_privileges() first" in done.stdout and done.stdout.splitlines()[-1] == f"-{errno.EPERM}"


def test_a_threaded_process_needs_tsync() -> None:
    """Refused with two threads, taken by both with TSYNC; the call stands in the recording with its words."""
    text = """
go, done = threading.Event(), threading.Event()
found = []
def other():
    go.wait()
    found.append(make('getsid', 0))
    done.set()
thread = threading.Thread(target=other)
thread.start()
try:
    load.install(given._replace(flags=0))
except LabError as error:
    say("2 threads" in str(error))
with recording() as calls:
    load.install(given)
say(calls[0])
go.set()
done.wait()
thread.join()
say(found)
"""
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    status, out = ended(rule("SCMP_ACT_ERRNO", "getsid") | {"flags": flags}, text)
    made = ("seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC|SECCOMP_FILTER_FLAG_LOG|"
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW, {len=N}) = 0")  # fmt: skip
    assert (status, re.sub(r"len=\d+", "len=N", out).splitlines()) == (0, ["True", made, "[-1]"])


LISTENED = """
channel = socket.socket(fileno=int(sys.argv[2]))
fd = load.install(given)
say(os.get_inheritable(fd))
socket.send_fds(channel, [b"fd"], [fd])
os.close(fd)
say(*[make('getsid', value) for value in range(3)], make('getsid', 3) != -errno.ENOSYS)
"""


def received(given: dict[str, Any], text: str) -> tuple[subprocess.Popen[str], int]:
    """A process that passes calls on, and its listener."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        started = child(given, text, pass_fds=(theirs.fileno(),))
        theirs.close()
        _, ancillary, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(4))
        assert ancillary, started.communicate()
    return started, array.array("i", ancillary[0][2])[0]


def test_calls_passed_on_are_answered_here() -> None:
    """A value, an errno, "make it after all": each is what the call returns; afterwards nobody waits."""
    started, fd = received(rule("SCMP_ACT_NOTIFY", "getsid"), LISTENED)
    try:
        answers = [
            lambda identity: listener.answer(fd, identity, 77),
            lambda identity: listener.answer(fd, identity, error=errno.EXDEV),
            lambda identity: listener.answer(fd, identity, 1 << 40),
            lambda identity: listener.proceed(fd, identity),
        ]
        for place, answer in enumerate(answers):
            one = listener.receive(fd, 20)
            assert one is not None and one.data.number == table(os.uname().machine)["getsid"]
            assert (one.pid, one.data.arguments[0]) == (started.pid, place)
            assert listener.receive(fd, 0.01) is None  # it has been handed out, and nobody else calls
            assert listener.waits(fd, one.id) and answer(one.id)
            assert not listener.waits(fd, one.id) and not answer(one.id)
        out, complaint = started.communicate(timeout=30)
        assert out.splitlines()[0] == "False", complaint
        assert out.splitlines()[1].split() == ["77", str(-errno.EXDEV), str(1 << 40), "True"]
        assert listener.receive(fd, 20) is None  # nobody is left to make a call
    finally:
        os.close(fd)
        started.kill()
        started.communicate()


def test_a_killed_process_waits_no_longer() -> None:
    """Its call's number is valid until then; an answer afterwards reaches nobody."""
    started, fd = received(rule("SCMP_ACT_NOTIFY", "getsid"), LISTENED)
    try:
        one = listener.receive(fd, 20)
        assert one is not None and listener.waits(fd, one.id)
        started.kill()
        started.communicate()
        assert not listener.waits(fd, one.id)
        assert not listener.proceed(fd, one.id)
    finally:
        os.close(fd)
        started.kill()
        started.communicate()
