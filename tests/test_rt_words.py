"""labkit-runtime's two readers of its command line: whatever the quick one understands, argparse understands alike."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from labkit.runtime.life import command, words

NAMES = sorted({name for verb in words.VERBS for flag in (*verb.flags, *words.GLOBAL) for name in flag.names})
WORDS = some.sampled_from(
    [*NAMES, *(f"{name}=x" for name in NAMES), *(verb.name for verb in words.VERBS), "one", "7", "-1", "--", "-", "",
     "json", "--nonsense", "-dt", "a b", "KILL", "--format=json", "-x"]
)  # fmt: skip


def slowly(argv: list[str]) -> dict[str, Any] | str:
    """What argparse makes of it."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return vars(words.parser().parse_args(argv))
        except SystemExit as end:
            return f"ended with {end.code}"


@given(some.lists(WORDS, max_size=8))
def test_the_quick_reader_says_what_argparse_says(argv: list[str]) -> None:
    """Every field and its value; what it does not understand, it leaves."""
    found = words.read(argv)
    assert found is None or vars(found) == slowly(argv)


@pytest.mark.parametrize(
    "argv",
    [
        "create --bundle /b --pid-file /p one",
        "--root /r --log /l --log-format json create --bundle /b --pid-file=/p --console-socket /c one",
        "--root=/r --systemd-cgroup run -d -b . --preserve-fds 3 one",
        "start one",
        "state one",
        "kill one 9",
        "kill --all one SIGTERM",
        "delete --force one",
        "list -q",
        "list --format json",
        "ps --format json one",
        "ps one aux",
        "ps one -ef",
        "ps --format json one -o pid --forest",
        "exec --process /p.json --pid-file /x --detach one",
        "exec -e A=b -e C=d --cap CAP_CHOWN one sh -c exit --flag",
        "update --memory 64m --pids-limit 5 one",
        "update --resources - one",
        "events --stats one",
        "spec --rootless",
        "features",
    ],
)
def test_what_engines_write_is_read_quickly(argv: str) -> None:
    """None of these needs argparse."""
    found = words.read(argv.split())
    assert found is not None and vars(found) == slowly(argv.split())


@pytest.mark.parametrize("argv", ["", "nonsense", "create", "create one two", "list x", "kill one 9 9", "exec",
                                  "--log-format xml list", "create --preserve-fds x one"])  # fmt: skip
def test_mistakes_end_as_argparse_ends_them(argv: str) -> None:
    """Status 2, and a usage line."""
    assert words.read(argv.split()) is None
    assert slowly(argv.split()) == "ended with 2"


def test_every_verb_does_something() -> None:
    """The table of words and the table of deeds have the same verbs."""
    assert {verb.name for verb in words.VERBS} == set(command.VERBS)
