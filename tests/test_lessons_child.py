"""The stage child as a notebook uses it: what goes in, what comes back, in its own words."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import NoReturn

import pytest
from runtime_ground import until

from labkit.errors import BadInput, LabError, NotFound, Refused
from labkit.kernel import syscalls
from labkit.lessons import Child, in_child, remote, tree
from labkit.lessons.printed import LIMIT


class Odd(Exception):
    """An exception whose class stands in a cell."""

    def __init__(self, number: int, word: str) -> None:
        super().__init__(f"{number} {word}")


def title(pid: int) -> str:
    """What ps shows as the process's command, by ps itself."""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()


def test_a_function_runs_in_another_process_and_its_value_comes_back() -> None:
    """With arguments, in one process for all stages, which has one thread and is no fork of this one."""

    def look(number: int, word: str) -> tuple[int, str, int, int, bool]:
        return number, word, os.getpid(), len(os.listdir("/proc/self/task")), "pytest" in sys.modules

    with Child("value") as one:
        first, second = one.do(look, 3, "three"), one.do(look, 4, "four")
        assert one.pid != os.getpid()
    assert first == (3, "three", one.pid, 1, False) and second == (4, "four", one.pid, 1, False)


def test_the_stage_is_the_title_in_ps() -> None:
    """While it runs: the name given, or else the function's own."""

    def wait_here() -> str:
        return subprocess.run(["ps", "-o", "args=", "-p", str(os.getpid())], capture_output=True, text=True).stdout

    with Child("titles") as one:
        assert one.do(wait_here).strip() == "labkit:wait_here"
        assert one.do(wait_here, stage="unshare").strip() == "labkit:unshare" == title(one.pid)


def test_prints_come_back_in_order_from_programs_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Python's, a program's and standard error's, as they were written."""

    def speak() -> None:
        print("one")
        os.system("echo two")
        print("three", file=sys.stderr)
        os.write(1, "vier äöü\n".encode())

    with Child("prints") as one:
        one.do(speak)
    assert capfd.readouterr().out == "one\ntwo\nthree\nvier äöü\n"


def test_prints_appear_while_the_stage_runs(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The stage ends only after this process has seen its line."""
    seen = tmp_path / "seen"
    said: list[str] = []

    def watch() -> None:
        until(lambda: said.append(capfd.readouterr().out) or "early" in "".join(said))
        seen.touch()

    def speak(path: Path) -> None:
        print("early")
        while not path.exists():
            pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    with Child("stream") as one:
        one.do(speak, seen)
    watcher.join()


def test_a_megabyte_is_shown_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly the limit is whole; beyond it the rest is counted."""
    with Child("megabyte") as one:
        one.do(lambda: print("x" * (LIMIT - 1)))
        assert capsys.readouterr().out == "x" * (LIMIT - 1) + "\n"
        one.do(lambda: print("x" * (LIMIT + 41)))
        assert capsys.readouterr().out == "x" * LIMIT + f"\n... cut after {LIMIT} bytes: 42 more were printed\n"


def test_an_exception_comes_back_in_kind_with_its_line() -> None:
    """A built-in one with its errno, one of the cell's own, its cause, and the source line that raised it."""

    def missing() -> None:
        os.stat("/no/such")  # this very line

    def own() -> None:
        try:
            missing()
        except OSError as error:
            raise ValueError("outer") from error

    with Child("raise") as one:
        with pytest.raises(FileNotFoundError) as caught:
            one.do(missing, stage="looking")
        assert caught.value.filename == "/no/such"
        (note,) = caught.value.__notes__
        assert "stage 'looking'" in note and 'os.stat("/no/such")  # this very line' in note
        assert "stages.py" not in note
        with pytest.raises(ValueError, match="outer") as chained:
            one.do(own)
        assert "FileNotFoundError" in chained.value.__notes__[0] and "direct cause" in chained.value.__notes__[0]


def test_an_exception_that_cannot_travel_comes_as_its_words() -> None:
    """A class that pickle cannot make again is named, and its text kept."""

    def odd() -> NoReturn:
        raise Odd(3, "things")

    with Child("odd") as one, pytest.raises(remote.Foreign, match="3 things") as caught:
        one.do(odd)
    assert "Odd" in str(caught.value)


def test_a_lab_error_keeps_its_four_parts() -> None:
    """What, why, next and status."""

    def fail() -> NoReturn:
        raise Refused("w", why="y", next="n", status=7)

    with Child("laberror") as one, pytest.raises(Refused) as caught:
        one.do(fail)
    assert (caught.value.what, caught.value.why, caught.value.next, caught.value.status) == ("w", "y", "n", 7)


def test_a_value_that_cannot_travel_comes_as_its_repr(capsys: pytest.CaptureFixture[str]) -> None:
    """And a line says so."""
    with Child("repr") as one:
        value = one.do(lambda: threading.Lock())
    assert isinstance(value, remote.Repr) and "lock" in value
    assert "cannot travel" in capsys.readouterr().out


def test_what_cannot_be_sent_is_refused_before_anything_runs() -> None:
    """An argument that is of this process alone, and the Child itself; the child can still be used."""
    with Child("unsent") as one:
        with pytest.raises(BadInput, match="pickle"):
            one.do(print, threading.Lock())
        with pytest.raises(Refused, match="cannot be sent into a child"):
            one.do(lambda: one.pid)
        assert one.do(lambda: 5) == 5


def test_large_values_go_both_ways() -> None:
    """More than a pipe holds."""
    with Child("large") as one:
        assert one.do(lambda text: text[::-1], "ab" * 1_000_000) == "ba" * 1_000_000


def test_spawn_starts_a_program_and_goes_on() -> None:
    """Its pid is right, it is the child's child, prints into the next stage, and ends with the child."""
    with Child("spawn") as one:
        pid = one.spawn("sleep", "1000")
        until(lambda: title(pid) == "sleep 1000")
        assert pid in tree.children(one.pid)
        with pytest.raises(NotFound, match="no-such-program"):
            one.spawn("no-such-program")
        assert one.do(os.getpid) == one.pid
    assert one.left == [] and not Path(f"/proc/{pid}").exists()


def test_a_stage_may_turn_into_a_program(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """After execve the child is that program: no more stages, its prints and its status are to be had."""
    os.mkfifo(tmp_path / "go")  # it lasts until it was asked for a stage
    script = f"echo from the program; read line < {tmp_path}/go; exit 3"
    with Child("exec") as one:
        one.do(os.execvp, "sh", ["sh", "-c", script], stage="exec")
        with pytest.raises(Refused):
            one.do(os.getpid)
        (tmp_path / "go").write_text("on\n")
        assert one.wait() == 3
    assert "from the program" in capfd.readouterr().out


def test_the_record_has_every_call_by_stage_and_forks_too() -> None:
    """Also those of a process that the function forked, and this process's own recordings hear of them."""

    def failing_call() -> None:
        pid = os.fork()
        if pid == 0:
            syscalls.call("gettid")
            os._exit(0)
        os.waitpid(pid, 0)
        syscalls.call("umount2", Path("/no/such"), 0)

    with syscalls.recording() as heard, Child("record") as one:
        one.do(syscalls.call, "gettid", stage="first")
        with pytest.raises(FileNotFoundError):
            one.do(failing_call, stage="second")
        assert [(stage.name, [call.name for call in stage.calls]) for stage in one.stages] == [
            ("first", ["gettid"]),
            ("second", ["gettid", "umount2"]),
        ]
    assert heard == one.calls and str(heard[-1]) == 'umount2("/no/such", 0) = -1 ENOENT'


def test_structures_in_the_record_are_their_words() -> None:
    """A call with a ctypes structure can travel, and reads as it would here."""
    with Child("struct") as one:
        one.do(lambda: os.close(syscalls.openat2(-100, "/", os.O_RDONLY)))
        assert str(one.calls[0]).startswith('openat2(AT_FDCWD, "/", {flags=O_RDONLY|O_CLOEXEC}, ')


def test_a_child_of_the_same_name_ends_the_old_one() -> None:
    """A cell run twice; another name is left alone."""
    old, other = Child("twice"), Child("other")
    new = Child("twice")
    try:
        assert old.closed and not Path(f"/proc/{old.pid}").exists()
        assert new.do(os.getpid) == new.pid and other.do(os.getpid) == other.pid
    finally:
        new.close()
        other.close()
    other.close()


def test_a_child_that_cannot_begin_says_why_and_is_gone() -> None:
    """A module that is to be imported ahead and does not exist."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        Child("beginning", imports=["no_such_module"])
    assert not [pid for pid in tree.children(os.getpid()) if title(pid).startswith("labkit")]


def test_in_child_runs_each_call_in_a_child_of_its_own() -> None:
    """Two calls, two processes, keyword arguments, and no third for the function that calls itself."""

    @in_child
    def pids(depth: int = 0, *, deep: bool = False) -> list[int]:
        return [os.getpid(), *(pids() if deep else [])]

    (first,), (second,) = pids(), pids(0)
    assert len({first, second, os.getpid()}) == 3
    assert len(set(pids(deep=True))) == 1 and pids.__name__ == "pids"
    assert in_child(limit=5.0)(os.getpid)() != os.getpid()


def test_a_refusal_in_this_process_points_to_the_child() -> None:
    """unshare in a process with threads: how many, which, and where to do it."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(LabError, match=r"2 threads[\s\S]*Child\(") as caught:
            syscalls.call("unshare", 0)
        assert isinstance(caught.value, RuntimeError)
    finally:
        stop.set()
        thread.join()


def test_a_learners_own_module_need_not_be_importable_in_the_child(tmp_path: Path) -> None:
    """A program's `__main__` and a module beside it are sent whole: a function and its global names."""
    (tmp_path / "mine.py").write_text("FACTOR = 7\ndef double(n): return helper(n)\ndef helper(n): return n * FACTOR\n")
    program = """
    import sys, os
    sys.path.append(sys.argv[1])
    import mine
    from labkit.lessons import Child
    def here(n): return mine.double(n) + 1
    with Child("main") as one:
        os.rename(sys.argv[1] + "/mine.py", sys.argv[1] + "/gone.py")
        print(one.do(mine.double, 3), one.do(len, [1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "21 1\n", done.stderr
