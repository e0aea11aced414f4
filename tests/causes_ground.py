"""Ground for the tests of labkit.kernel.causes: a case provokes one row of the table, mends it, and calls again.

A case is (setup, attempt, mend): three pieces of Python for one fresh program in a mount namespace
of its own.  `attempt` is an expression, evaluated before and after `mend`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

from labkit.kernel import causes

PRELUDE = """
import ctypes, fcntl, json, os, resource, select, signal, sys, threading, time
from pathlib import Path
from labkit.kernel import causes, syscalls, constants as C
from labkit.kernel.syscalls import call

BIND, REC, REMOUNT, MOVE = C.MS_BIND, C.MS_REC, C.MS_REMOUNT, C.MS_MOVE
SHARED, PRIVATE, UNBINDABLE = C.MS_SHARED, C.MS_PRIVATE, C.MS_UNBINDABLE
NEWNS, NEWUSER, NEWPID, NEWNET, NEWUTS = C.CLONE_NEWNS, C.CLONE_NEWUSER, C.CLONE_NEWPID, C.CLONE_NEWNET, C.CLONE_NEWUTS
SELF = os.getpid()
here = Path("/mnt")
call("mount", "here", "/mnt", "tmpfs", 0, "mode=777")
os.chdir("/mnt")

def told(error, name, arguments):
    return [error.errno, *causes.explain(error, name, arguments)]

def tried(name, *arguments):
    try:
        call(name, *arguments)
    except OSError as error:
        return told(error, name, arguments)
    return "done"

libc = ctypes.CDLL(None, use_errno=True)
def raw(name, *arguments):  # labkit's own call refuses these in a process with threads
    if getattr(libc, name)(*arguments) == 0:
        return "done"
    return told(OSError(ctypes.get_errno(), ""), name, arguments)

def wrote(path, text):
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        return told(error, Path(path).name, (str(path), text))
    return "done"

def pythons(function, *arguments):  # os.fork, os.mkdir, os.rmdir
    try:
        if function(*arguments) == 0:
            os._exit(0)
    except OSError as error:
        return told(error, function.__name__, arguments)
    if function is os.fork:
        os.wait()
    return "done"

def mnt(path, kind="tmpfs", flags=0):
    path.mkdir(exist_ok=True)
    call("mount", kind, path, kind, flags, None)
    return path

def bind(path):
    call("mount", path, path, None, BIND | REC, None)

def flag(path, bits):
    call("mount", None, path, None, bits, None)

def user_ns(more=0):
    call("unshare", NEWUSER | more)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        Path("/proc/self", name).write_text(text)

def ordinary(dumpable=1):
    os.setgroups([])
    os.setresgid(12345, 12345, 12345)
    os.setresuid(12345, 12345, 12345)
    call("prctl", C.PR_SET_DUMPABLE, dumpable, 0, 0, 0)

def forked(function):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(function()).encode())
        except BaseException as error:
            os.write(writing, json.dumps(repr(error)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)

def sleeper(function=lambda: None):  # a process that has done `function` and then waits; it ends with us
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        call("prctl", C.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        function()
        os.write(writing, b"x")
        while True:
            signal.pause()
    os.read(reading, 1)
    os.close(reading), os.close(writing)
    return pid

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

class Thread:
    def __init__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.stop.wait)
        self.thread.start()
    def end(self):
        self.stop.set()
        self.thread.join()
        while syscalls.threads() > 1:
            time.sleep(0.001)

def say(value):
    print("SAID " + json.dumps(value), flush=True)
"""


class Case(NamedTuple):
    """How a row of the table is provoked and mended; `words` is part of what it says."""

    setup: str
    attempt: str
    mend: str
    words: str = ""


def prove(row: str, case: Case, *arguments: str) -> list[Any]:
    """Run a case; assert that its first call fails as the row says and that the second one succeeds."""
    program = "\n".join(
        [
            PRELUDE,
            textwrap.dedent(case.setup),
            f"say({case.attempt})",
            textwrap.dedent(case.mend),
            f"say({case.attempt})",
        ]
    )
    words = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", program, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    said = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert len(said) == 2, (said, done.stderr[-3000:])
    first, second = said
    known = next(one for one in causes.TABLE if one.name == row)
    assert first != "done", "the first call did not fail"
    number, name, why, advice = first
    assert (number, name, advice) == (known.errno, row, known.advice), first
    assert case.words in why and why, why
    assert second == "done", second
    return said
