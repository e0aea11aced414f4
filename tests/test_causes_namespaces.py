"""Each cause of a failed unshare, clone3, setns or fork: provoked, named, mended, and then the call succeeds."""

from __future__ import annotations

import os

import pytest
from causes_ground import Case, prove

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

SETNS = 'tried("setns", fd, bits)'
CLONE3 = """
def cloned(bits):
    arguments = syscalls.CloneArgs(flags=bits, exit_signal=17)
    if syscalls.threads() > 1:
        raise RuntimeError
    try:
        pid = call("clone3", arguments, ctypes.sizeof(arguments))
    except OSError as error:
        return told(error, "clone3", (arguments, ctypes.sizeof(arguments)))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "done"
"""

CASES = {
    "namespaces.new_without_admin": Case(
        "ordinary(); bits = NEWUTS", 'tried("unshare", bits)', "bits |= NEWUSER", "(user 12345) lacks CAP_SYS_ADMIN"
    ),
    "namespaces.chrooted": Case(
        """
        jail = here / "jail"
        jail.mkdir()
        mnt(jail / "proc", "proc")
        outside = os.open("/", os.O_RDONLY)
        os.chroot(jail)
        """,
        'tried("unshare", NEWUSER)',
        'os.fchdir(outside); os.chroot(".")',
        "in a chroot",
    ),
    "namespaces.not_mapped": Case(
        'call("unshare", NEWUSER)',
        'tried("unshare", NEWUSER)',
        'Path("/proc/self/setgroups").write_text("deny"); Path("/proc/self/uid_map").write_text("0 0 1"); '
        'Path("/proc/self/gid_map").write_text("0 0 1")',
        "/proc/self/uid_map is empty",
    ),
    "namespaces.limit_reached": Case(
        'user_ns(); limit = Path("/proc/sys/user/max_uts_namespaces"); limit.write_text("0")',
        'tried("unshare", NEWUTS)',
        'limit.write_text("10")',
        "max_uts_namespaces is 0",
    ),
    # Each process unshares and forks the next one, until the kernel refuses; the answer goes back through a pipe.
    "namespaces.nested_too_deep": Case(
        """
        reading, writing = os.pipe()
        def nest():
            said = tried("unshare", NEWPID)
            if said != "done":
                os.write(writing, json.dumps(said).encode())
                return
            if os.fork() == 0:
                nest()
                os._exit(0)
            os.wait()
        def deep():
            if os.fork() == 0:
                nest()
                os._exit(0)
            os.wait()
            return json.loads(os.read(reading, 65536))
        attempts = [deep, lambda: tried("unshare", NEWPID)]
        """,
        "attempts.pop(0)()",
        "",
        "32 in all",
    ),
    "namespaces.unshared_with_threads": Case(
        "thread = Thread()", 'raw("unshare", NEWUSER)', "thread.end()", "has 2 threads"
    ),
    "namespaces.unshared_pid_twice": Case(
        'call("unshare", NEWPID); runner = lambda attempt: attempt()',
        'runner(lambda: tried("unshare", NEWPID))',
        "runner = forked",
        "pid_for_children",
    ),
    "namespaces.init_has_ended": Case(
        """
        fd = os.open("/proc/self/ns/pid", os.O_RDONLY)
        call("unshare", NEWPID)
        forked(lambda: None)
        """,
        "pythons(os.fork)",
        'call("setns", fd, NEWPID)',
        "process 1 has ended",
    ),
    "namespaces.too_many_processes": Case(
        "ordinary(); resource.setrlimit(resource.RLIMIT_NPROC, (1, 100))",
        "pythons(os.fork)",
        "resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))",
        "may have 1 (ulimit -u)",
    ),
    "namespaces.closed": Case(
        "fd, bits = 999, 0", SETNS, 'os.dup2(os.open("/proc/self/ns/uts", os.O_RDONLY), 999)', "999 is not open"
    ),
    "namespaces.no_namespace": Case(
        'fd, bits = os.open("/etc/passwd", os.O_RDONLY), 0',
        SETNS,
        'fd = os.open("/proc/self/ns/uts", os.O_RDONLY)',
        "/etc/passwd: no namespace",
    ),
    "namespaces.wrong_kind": Case(
        'fd, bits = os.open("/proc/self/ns/uts", os.O_RDONLY), NEWNET', SETNS, "bits = NEWUTS", "of a uts namespace"
    ),
    "namespaces.no_flags": Case(
        'fd, bits = call("pidfd_open", sleeper(), 0), 0', SETNS, "bits = NEWUTS", "flags name none"
    ),
    "namespaces.own_user_namespace": Case(
        'fd, bits = call("pidfd_open", sleeper(), 0), NEWUSER | NEWUTS', SETNS, "bits = NEWUTS", "a second time"
    ),
    "namespaces.pid_not_below": Case(
        """
        fd, bits = os.open("/proc/self/ns/pid", os.O_RDONLY), NEWPID
        call("unshare", NEWPID)
        runner = forked
        """,
        f"runner(lambda: {SETNS})",
        "runner = lambda attempt: attempt()",
        "above or beside",
    ),
    "namespaces.joined_with_threads": Case(
        'fd = os.open("/proc/self/ns/mnt", os.O_RDONLY); thread = Thread()',
        'raw("setns", fd, NEWNS)',
        "thread.end()",
        "2 threads, and a mnt",
    ),
    "namespaces.joined_time_with_threads": Case(
        'fd = os.open("/proc/self/ns/time", os.O_RDONLY); thread = Thread()',
        'raw("setns", fd, C.CLONE_NEWTIME)',
        "thread.end()",
        "2 threads, and a time",
    ),
    # Both belong to the ordinary user: his own user namespace, and the uts namespace that it owns.
    "namespaces.join_without_admin": Case(
        """
        ordinary()
        other = sleeper(lambda: call("unshare", NEWUSER | NEWUTS))
        owner, fd = (os.open(f"/proc/{other}/ns/{kind}", os.O_RDONLY) for kind in ("user", "uts"))
        bits = NEWUTS
        """,
        SETNS,
        'call("setns", owner, NEWUSER)',
        "which entering a namespace needs",
    ),
    "namespaces.process_gone": Case(
        """
        pid = sleeper()
        fd, bits = call("pidfd_open", pid, 0), NEWUTS
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        """,
        SETNS,
        'fd = call("pidfd_open", sleeper(), 0)',
        "has ended; its parent",
    ),
}


@pytest.mark.parametrize("row", CASES)
def test_a_condition_of_a_namespace_is_named_and_mended(row: str) -> None:
    """The row is the one that is found; after its advice the same call succeeds."""
    prove(row, CASES[row])


AS_CLONE3 = {
    "namespaces.new_without_admin": Case("ordinary(); bits = NEWUTS", "cloned(bits)", "bits |= NEWUSER", "lacks"),
    "namespaces.limit_reached": Case(
        'user_ns(); limit = Path("/proc/sys/user/max_net_namespaces"); limit.write_text("0")',
        "cloned(NEWNET)",
        'limit.write_text("10")',
        "max_net_namespaces is 0",
    ),
    "namespaces.init_has_ended": Case(
        'fd = os.open("/proc/self/ns/pid", os.O_RDONLY); call("unshare", NEWPID); forked(lambda: None)',
        "cloned(0)",
        'call("setns", fd, NEWPID)',
        "process 1 has ended",
    ),
}


@pytest.mark.parametrize("row", AS_CLONE3)
def test_clone3_is_told_the_same(row: str) -> None:
    """The flags are read out of clone3's structure."""
    prove(row, AS_CLONE3[row]._replace(setup=CLONE3 + AS_CLONE3[row].setup))


def test_a_limit_above_nought_is_counted() -> None:
    """With one uts namespace allowed, and it made, the message says 1; raised, the next one is made."""
    setup = (
        'user_ns(); limit = Path("/proc/sys/user/max_uts_namespaces"); limit.write_text("1"); call("unshare", NEWUTS)'
    )
    prove(
        "namespaces.limit_reached",
        Case(setup, 'tried("unshare", NEWUTS)', 'limit.write_text("2")', "max_uts_namespaces is 1"),
    )
