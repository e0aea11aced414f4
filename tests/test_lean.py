"""What starts fast behaves as the library's own: typing.NamedTuple, json, signal."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as some

from labkit import lean, leanjson


class Ours(lean.Record):
    """A record."""

    one: int
    two: str = "b"
    three: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        """A method beside the fields."""
        return f"{self.one}{self.two}"


class Theirs(NamedTuple):
    """The same, by the library."""

    one: int
    two: str = "b"
    three: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        """A method beside the fields."""
        return f"{self.one}{self.two}"


DEEDS: list[Callable[[Any], Any]] = [
    lambda kind: kind(1),
    lambda kind: kind(1, "x", (2,)),
    lambda kind: kind(three=(1,), one=2),
    lambda kind: kind(1) == (1, "b", ()),
    lambda kind: kind(1).both,
    lambda kind: kind(1)._replace(two="c"),
    lambda kind: kind(1)._asdict(),
    lambda kind: kind._fields,
    lambda kind: kind._field_defaults,
    lambda kind: hash(kind(1)),
    lambda kind: [*kind(1)],
    lambda kind: pickle.loads(pickle.dumps(kind(5))) == kind(5),
    lambda kind: repr(kind(1)).partition("(")[2],
]


@pytest.mark.parametrize("number", range(len(DEEDS)))
def test_a_record_is_a_named_tuple(number: int) -> None:
    """Made, read, compared, changed, pickled and shown alike."""
    assert DEEDS[number](Ours) == DEEDS[number](Theirs)


@pytest.mark.parametrize("wrong", [{}, {"one": 1, "four": 2}, {"two": "x"}])
def test_a_record_refuses_what_a_named_tuple_refuses(wrong: dict[str, Any]) -> None:
    """Too few and unknown fields are a TypeError; so are too many, twice one, and a change of what is not there."""
    deeds: list[Callable[[Any], Any]] = [lambda kind: kind(**wrong), lambda kind: kind(1, 2, 3, 4),
                                         lambda kind: kind(1, one=1)]  # fmt: skip
    for kind in (Ours, Theirs):
        for deed in deeds:
            with pytest.raises(TypeError):
                deed(kind)
        with pytest.raises((TypeError, ValueError)):
            kind(1)._replace(four=4)  # type: ignore[call-arg]
        with pytest.raises(AttributeError):
            kind(1).one = 2  # type: ignore[misc]


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
)


@given(VALUES)
def test_values_are_written_as_json_writes_them(value: Any) -> None:
    """To the letter; and read back as json reads them."""
    text = json.dumps(value)
    assert leanjson.dumps(value) == text
    assert repr(leanjson.loads(text)) == repr(json.loads(text))
    assert repr(leanjson.loads(text.encode(), pairs=list)) == repr(json.loads(text, object_pairs_hook=list))


@given(some.text(alphabet='{}[]",:0123456789.eE+-truefalsn \\\n\t\x00'))
def test_texts_are_refused_as_json_refuses_them(text: str) -> None:
    """The same value, or an error of the same kind and words."""

    def outcome(read: Callable[[str], Any]) -> str:
        try:
            return repr(read(text))
        except (ValueError, RecursionError) as error:
            return f"{type(error).__name__} {error}"

    assert outcome(leanjson.loads) == outcome(json.loads)


def test_what_json_cannot_write_is_refused() -> None:
    """A set is no JSON, nor is a list that holds itself."""
    with pytest.raises(TypeError):
        leanjson.dumps({1, 2})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises((ValueError, RecursionError)):
        leanjson.dumps(loop)


def test_signals_have_their_numbers() -> None:
    """Every one that the library names."""
    for one in signal.Signals:
        assert getattr(lean.signal, one.name) == one.value


HEAVY = {"typing", "enum", "re", "pathlib", "json", "argparse", "socket", "signal", "contextlib", "functools",
         "collections", "shutil", "dataclasses", "subprocess", "inspect"}  # fmt: skip


@pytest.mark.parametrize("name", ["labkit.lean", "labkit.leanjson"])
def test_it_imports_nothing_heavy(name: str) -> None:
    """None of what it is there to spare."""
    code = f"import {name}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("text", ["{", "[1,", '{"a" 1}', "", "nul", "[1] 2", '"\\ud8"', "[NaN]"])
def test_without_the_json_package_errors_are_its_own(text: str) -> None:
    """Where nobody has imported json, the outcome is the same."""
    code = "import sys; from labkit import leanjson\ntry: print(leanjson.loads(sys.argv[1]))\n"
    code += "except ValueError as error: print(type(error).__name__, error)"
    done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, check=True)
    try:
        said = str(json.loads(text))
    except ValueError as error:
        said = f"{type(error).__name__} {error}"
    assert done.stdout == said + "\n"
