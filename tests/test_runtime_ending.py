"""A signal that ends what is being made is never lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest


def done(program: str, **extra: Any) -> subprocess.CompletedProcess[str]:
    """A program of Python's, to its end; it can send itself signals with `me`."""
    prelude = "import os, signal, sys\nfrom labkit.runtime import ending\nme = lambda n: os.kill(os.getpid(), n)\n"
    words = [sys.executable, "-c", prelude + textwrap.dedent(program)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, **extra)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_unwinds(number: int) -> None:
    """What is under way is ended as by an error, and the status says which signal it was."""
    end = done(f"""
        ending.unwind()
        try:
            me({int(number)})
            print("went on")
        finally:
            print("given back")
    """)
    assert (end.returncode, end.stdout, end.stderr) == (128 + number, "given back\n", "")


def test_one_that_python_drops_is_found_by_check() -> None:
    """Raised in a destructor it is only printed; `check` raises it again, and not before one has arrived."""
    end = done("""
        class Dying:
            def __del__(self):
                me(signal.SIGTERM)
        ending.unwind()
        one = Dying()
        ending.check()
        sys.unraisablehook = lambda lost: print("dropped", lost.exc_type.__name__)
        del one
        print("went on")
        ending.check()
        print("went on too long")
    """)
    assert (end.returncode, end.stdout) == (128 + signal.SIGTERM, "dropped SystemExit\nwent on\n")


def test_what_the_caller_ignores_stays_ignored() -> None:
    """nohup's SIGHUP ends nothing."""
    end = done("""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ending.unwind()
        me(signal.SIGHUP)
        ending.check()
    """)
    assert end.returncode == 0, end.stderr


def test_control_c_while_a_verb_is_imported_prints_no_frames() -> None:
    """It ends the command as it would any program; when the verb has begun, Python's own handler is back."""
    end = done("""
        from labkit import cli
        sys.modules["slow"] = type(sys)("slow")
        sys.modules["slow"].f = lambda rest: signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        cli.VERBS["fast"] = ("slow:f", "")
        assert cli.main(["fast"]) == 0
        cli.importlib.import_module = lambda name: me(signal.SIGINT)
        cli.main(["fast"])
    """)
    assert (end.returncode, end.stderr) == (-signal.SIGINT, "")
