"""Resource limits by prlimit64(2); the oracle is Python's resource module, which asks by the same call."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from labkit.kernel import limits, syscalls


def test_limits_are_read_as_the_library_reads_them() -> None:
    """Every limit that both know, of this process and of another; -1 there is UNLIMITED here."""
    both = [name for name in limits.NUMBERS if hasattr(resource, name)]
    assert set(limits.NUMBERS) - set(both) <= {"RLIMIT_LOCKS"}
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            for name in both:
                assert limits.NUMBERS[name] == getattr(resource, name)
                for pid in (0, other.pid):
                    expected = resource.prlimit(pid, getattr(resource, name))
                    assert limits.get(pid, limits.NUMBERS[name]) == tuple(one % 2**64 for one in expected)
        finally:
            other.kill()


def test_a_limit_is_set_and_the_call_is_recorded() -> None:
    """For another process; with the words of strace(1) for the limit and for no limit."""
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            hard = limits.get(other.pid, limits.NUMBERS["RLIMIT_CORE"])[1]
            with syscalls.recording() as calls:
                limits.put(other.pid, limits.NUMBERS["RLIMIT_CORE"], 0, hard)
            assert resource.prlimit(other.pid, resource.RLIMIT_CORE)[0] == 0
            shown = "RLIM64_INFINITY" if hard == limits.UNLIMITED else hard
            (said,) = map(str, calls)
            assert said == f"prlimit64({other.pid:#x}, RLIMIT_CORE, {{rlim_cur=0, rlim_max={shown}}}, NULL) = 0"
        finally:
            other.kill()


def test_a_soft_limit_above_the_hard_one_is_refused() -> None:
    """EINVAL, and nothing has changed."""
    before = limits.get(os.getpid(), limits.NUMBERS["RLIMIT_NOFILE"])
    with pytest.raises(OSError, match="RLIMIT_NOFILE"):
        limits.put(0, limits.NUMBERS["RLIMIT_NOFILE"], 20, 10)
    assert limits.get(0, limits.NUMBERS["RLIMIT_NOFILE"]) == before
