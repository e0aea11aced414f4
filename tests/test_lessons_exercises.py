"""Judging an answer: three outcomes, whatever the learner's function does, and nothing left of it."""

from __future__ import annotations

import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from labkit.kernel.namespaces import inode
from labkit.lessons import exercises, ground
from labkit.lessons.exercises import exercise
from labkit.lessons.ground import Ground
from labkit.lessons.judge import judge
from labkit.lessons.outcome import BROKEN, NOT_ATTEMPTED, RIGHT, WRONG, Outcome, Wrong
from labkit.lessons.task import run

if TYPE_CHECKING:
    from lessons_ground import Make

pytest_plugins = ["lessons_ground"]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
    pytest.mark.usefixtures("learner"),
]


def answer(tmp_path: Path, body: str) -> Callable[..., Any]:
    """The learner's function with this body."""
    file = tmp_path / "cell.py"
    file.write_text("import os, sys, time\n\n\ndef answer(word):\n" + textwrap.indent(textwrap.dedent(body), "    "))
    found = run(file)["answer"]
    assert callable(found)
    return found  # type: ignore[no-any-return]


def judged(make: Make, tmp_path: Path, body: str, limit: float = 10) -> Outcome:
    return judge(make(limit=limit), answer(tmp_path, body))


@pytest.mark.parametrize("body", ["...", '"""My own words."""\n...', "pass", "# a note\n..."])
def test_what_does_nothing_is_not_attempted(make: Make, tmp_path: Path, body: str) -> None:
    """A body without a statement is no attempt, whatever its comments and docstring say."""
    outcome = judged(make, tmp_path, body)
    assert (outcome.state, outcome.message) == (NOT_ATTEMPTED, "to write: answer(word): the word in capitals")


def test_a_check_before_anything_was_run_is_not_attempted(make: Make) -> None:
    """Without a function there is no attempt; something that is no function is told."""
    task = make()
    assert judge(task, None).state == judge(task, ...).state == NOT_ATTEMPTED
    outcome = judge(task, "the value")
    assert outcome.state == WRONG and "without brackets; this is 'the value'" in outcome.message


def test_the_skeletons_own_scaffolding_is_not_attempted(make: Make, tmp_path: Path) -> None:
    """A skeleton with statements in it is no attempt until they are changed."""
    task = make(files={"skeleton.py": "# exercise: shout\ndef answer(word):\n    big = ...\n    return big\n"})
    assert judge(task, answer(tmp_path, "'''Mine.'''\nbig = ...\nreturn big")).state == NOT_ATTEMPTED
    assert judge(task, answer(tmp_path, "big = word.upper()\nreturn big")).state == RIGHT


def test_right_is_right(make: Make, tmp_path: Path) -> None:
    """An answer that the check has nothing against is right, and says nothing."""
    assert judged(make, tmp_path, "return word.upper()") == Outcome(RIGHT, "", "")


def test_wrong_says_what_was_seen(make: Make, tmp_path: Path) -> None:
    """The check's own words are the message."""
    outcome = judged(make, tmp_path, "return None")
    assert outcome.state == WRONG and outcome.message.startswith("it came to None, and not to ")


def test_an_exception_is_told_with_its_line(make: Make, tmp_path: Path) -> None:
    """What the learner's function raises is wrong, with the line of theirs and no traceback of ours."""
    outcome = judged(make, tmp_path, "number = 1\nopen('/nothing/there')")
    assert outcome.state == WRONG
    assert outcome.message.splitlines() == [
        "answer() raised FileNotFoundError: [Errno 2] No such file or directory: '/nothing/there'",
        "  in the line: open('/nothing/there')",
    ]


@pytest.mark.parametrize("error", ["AssertionError('x')", "KeyboardInterrupt()", "StopIteration(1)", "ExceptionGroup('e', [ValueError()])"])  # fmt: skip  # noqa: E501
def test_any_exception_is_the_learners(make: Make, tmp_path: Path, error: str) -> None:
    """No exception of the learner's function is taken for one of the check's."""
    assert judged(make, tmp_path, f"raise {error}").state == WRONG


def test_a_function_that_never_returns_is_ended(make: Make, tmp_path: Path) -> None:
    """A hang ends after its limit and says where it was."""
    start = time.monotonic()
    outcome = judged(make, tmp_path, "while True:\n    time.sleep(60)", limit=1)
    assert outcome.state == WRONG and "did not end within 1 s" in outcome.message and "sleep" in outcome.message
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("body", "words"),
    [("os._exit(3)", "ended itself with status 3"), ("sys.exit(4)", "ended itself with status 4"),
     ("os.kill(os.getpid(), 9)", "SIGKILL"), ("os.kill(os.getpid(), 15)", "SIGTERM")],
)  # fmt: skip
def test_an_end_without_an_answer_is_told(make: Make, tmp_path: Path, body: str, words: str) -> None:
    """A function that ends its process is wrong, and each way of it is told apart."""
    outcome = judged(make, tmp_path, body)
    assert outcome.state == WRONG and words in outcome.message


def test_processes_that_are_left_are_ended(make: Make, tmp_path: Path) -> None:
    """Children of children that left the session are gone after the check."""
    mark = f"left-{os.getpid()}-{time.monotonic_ns()}"
    body = f"""
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execvp("sleep", ["{mark}", "1000"])
            os._exit(0)
    time.sleep(0.3)
    return word.upper()
    """
    assert judged(make, tmp_path, body).state == RIGHT
    assert subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True).stdout == ""


def test_a_megabyte_of_prints_is_shortened(make: Make, tmp_path: Path) -> None:
    """What is printed is shown in its beginning, and does not count."""
    outcome = judged(make, tmp_path, "for _ in range(20000):\n    print('x' * 50)\nreturn word.upper()")
    assert outcome.state == RIGHT and outcome.printed.startswith("xxx") and len(outcome.printed) < 2000


@pytest.mark.parametrize(
    "body",
    ["os.close(0)\nreturn word.upper()", "os.close(1)\nos.close(2)\nreturn word.upper()",
     "sys.stdin.close()\nsys.stdout.close()\nreturn word.upper()"],
)  # fmt: skip
def test_closed_streams_do_no_harm(make: Make, tmp_path: Path, body: str) -> None:
    """A function that closes its standard streams is judged like any other."""
    assert judged(make, tmp_path, body).state == RIGHT


def test_the_machine_is_behind_a_fence(make: Make, tmp_path: Path) -> None:
    """A function that forgets its unshare changes neither the machine's host name nor its mounts."""
    before = os.uname().nodename
    body = f"""
    from labkit.kernel.syscalls import call
    call("sethostname", "harm", 4)
    call("mount", "harm", "{tmp_path}", "tmpfs", 0, None)
    return os.uname().nodename.upper()
    """
    assert "'HARM'" in judged(make, tmp_path, body).message
    assert os.uname().nodename == before
    assert not os.path.ismount(tmp_path)


def test_a_mistake_of_the_check_is_not_the_learners(make: Make, tmp_path: Path) -> None:
    """An exception of the check itself is told as such."""
    task = make(files={"check.py": "def check(function, lab):\n    lab.call(function, 'a')\n    1 / 0\n"})
    outcome = judge(task, answer(tmp_path, "return word"))
    assert outcome.state == BROKEN and "no fault of yours: ZeroDivisionError" in outcome.message


# --- the ground ---------------------------------------------------------------------------


def test_the_fence_is_seen_from_outside() -> None:
    """Children stand in the fence's namespaces, none of which is the machine's, and `inside` looks into them."""
    with Ground("test") as lab:
        one = lab.child()
        for kind in ("mnt", "uts", "ipc"):
            assert inode(kind, one.pid) == inode(kind, lab.outside) != inode(kind)
        assert one.calls == []
        one.do(exec, "import socket; socket.sethostname('there')")
        assert lab.inside(one.pid, ["uts"], os.uname).nodename == "there"
        words = ["nsenter", "-t", str(one.pid), "-u", "hostname"]
        assert subprocess.run(words, capture_output=True, text=True).stdout == "there\n"


def test_until_waits_and_then_says_what_did_not_come() -> None:
    """until() returns the first true answer; at its deadline it is Wrong with the words given."""
    answers = iter([0, "", "yes"])
    with Ground("test") as lab:
        assert lab.until(lambda: next(answers)) == "yes"
        with pytest.raises(Wrong, match=re.escape("it is not there (waited 0.1 s)")):
            lab.until(lambda: False, 0.1, "it is not there")


def test_folders_go_with_the_mounts_in_them() -> None:
    """What is mounted in a folder of the ground is unmounted; what lies under a mount is not removed."""
    with tempfile.TemporaryDirectory() as precious:
        (Path(precious) / "file").touch()
        with Ground("test") as lab:
            here = lab.folder()
            (here / "deep/er").mkdir(parents=True)
            for place in ("deep", "deep"):
                subprocess.run(["mount", "--bind", precious, here / place], check=True)
        assert not here.exists()
        assert (Path(precious) / "file").exists()


def test_all_is_given_back_when_the_check_fails() -> None:
    """An exception in the middle of a check leaves no child and no folder."""
    with pytest.raises(ZeroDivisionError), Ground("test") as lab:
        pids = [lab.child().pid, lab.outside]
        here = lab.folder()
        raise ZeroDivisionError
    assert not here.exists() and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_killed_attempt_is_swept() -> None:
    """Folders whose process was killed in the middle are removed by name, those of the living stay."""
    script = "from labkit.lessons.ground import Ground; g = Ground('swept'); print(g.folder(), flush=True); input()"
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        assert ground.sweep("swept") == []
        process.send_signal(signal.SIGKILL)
    assert ground.sweep("swept") == [path] and not Path(path).exists()


# --- what a notebook prints -----------------------------------------------------------------


def test_the_three_outcomes_as_printed(
    make: Make, tmp_path: Path, learner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """check() prints the outcome and what to do next; the right answer is kept."""
    make()
    for body in ("...", "return None", "print('hello')\nreturn word.upper()"):
        exercise("shout").check(answer(tmp_path, body))
    lines = [re.sub(r"[A-Z]{8}", "TOKEN", line) for line in capsys.readouterr().out.splitlines()]
    offer = ['a hint: exercise("shout").hint()', 'to go on with labkit\'s answer: exercise("shout").load()']
    assert lines == [
        *("shout: not attempted", "  to write: answer(word): the word in capitals", *offer),
        *("shout: wrong", "  it came to None, and not to 'TOKEN'", *offer),
        *("shout: right", "your function printed:", "  hello", f"  kept as {learner}/shout.py"),
    ]


def test_labkits_answer_is_not_kept_as_the_learners(
    make: Make, learner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loaded reference is right, and stays labkit's."""
    task = make()
    exercise("shout").check(task.answer("reference"))
    assert "it is not kept as yours" in capsys.readouterr().out
    assert not (learner / "shout.py").exists()


def test_hints_come_one_by_one(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Each hint() shows one more; after the last one it points to the solution."""
    make()
    for _ in range(3):
        exercise("shout").hint()
    last = 'that was the last hint; the answer: exercise("shout").solution()'
    both = ["1. Look at str.", "2. upper()", last]
    assert capsys.readouterr().out.splitlines() == ["1. Look at str.", *both, *both]


def of_a_cell(code: str, name: str) -> Any:
    """A function as a notebook's cell defines it: its file is in linecache, and on no disk."""
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), names)
    return names["answer"]


def test_an_exception_of_a_cell_is_told_with_its_line(make: Make) -> None:
    """A cell is no file, and the line that raised is told all the same; a helper's when it was the helper."""
    own = of_a_cell("def answer(word):\n    number = 1 / 0  # here\n", "/tmp/ipykernel_1/1.py")
    assert "  in the line: number = 1 / 0  # here" in judge(make(), own).message.splitlines()
    helped = of_a_cell("def helper():\n    raise KeyError('k')\n\ndef answer(word):\n    helper()\n", "/tmp/ipykernel_1/2.py")  # fmt: skip  # noqa: E501
    assert "  in the line: raise KeyError('k')" in judge(make("second"), helped).message.splitlines()


def test_an_errno_of_a_system_call_is_told_with_its_cause(make: Make, tmp_path: Path) -> None:
    """What labkit knows of the kernel's reason stands below the exception, once."""
    body = "from labkit.kernel.syscalls import call\ncall('unshare', 0x20000000)\ncall('unshare', 0x20000000)"
    message = judged(make, tmp_path, body).message
    assert message.count("why:") == 1 and "pid_for_children" in message


def test_an_end_is_told_in_the_functions_name(make: Make, tmp_path: Path) -> None:
    """A learner has written a function, and knows nothing of stages; the fence's calls are not theirs."""
    ended = judged(make, tmp_path, "os._exit(3)").message
    assert ended.startswith("answer() did not return") and "recorded call" not in ended and "stage" not in ended
    assert judge(make("hangs", limit=1), answer(tmp_path, "time.sleep(60)")).message.startswith(
        "answer() did not end within 1 s"
    )


def test_an_interrupted_check_is_short(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever interrupts a check sees their cell and one sentence, not the way through the check."""

    def interrupted(task: Any, function: Any) -> NoReturn:
        raise KeyboardInterrupt

    make()
    monkeypatch.setattr(exercises, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        exercises.exercise("shout").check(len)
    assert len(stopped.traceback) == 2 and "nothing was judged" in stopped.value.__notes__[0]


def test_a_long_message_is_broken_between_words(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, learner: Path
) -> None:
    """A browser would break it within a word: the lines are no wider than a cell."""
    words = " ".join(f"word-{number}" for number in range(60))
    make()
    monkeypatch.setattr(exercises, "judge", lambda task, function: Outcome(WRONG, words + "\n  why:  it is long"))
    exercises.exercise("shout").check(len)
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 100 and "    why:  it is long" in printed
    assert " ".join(" ".join(printed).split()).count("word-") == 60
