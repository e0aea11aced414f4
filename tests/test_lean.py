"""What starts fast behaves as the library's own: typing.NamedTuple, json, signal, ctypes."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as some

from labkit import lean, leanctypes, leanjson


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


TYPES = [name for name in leanctypes.__all__ if name.startswith("c_")]


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_as_large_as_its_namesake(name: str) -> None:
    """Size, alignment, and what a value too large becomes."""
    ours, theirs = getattr(leanctypes, name), getattr(ctypes, name)
    assert (ctypes.sizeof(ours), ctypes.alignment(ours)) == (ctypes.sizeof(theirs), ctypes.alignment(theirs))
    if name not in ("c_char", "c_char_p", "c_void_p"):
        assert [ours(one).value for one in (-1, 2**70 + 5)] == [theirs(one).value for one in (-1, 2**70 + 5)]


def test_a_structure_lies_in_memory_as_ctypes_lays_it() -> None:
    """The same bytes for the same values, with the gaps that alignment makes."""

    def made(kinds: Any) -> bytes:
        fields = [(name, getattr(kinds, name)) for name in TYPES if name != "c_char_p"]
        members = {"_fields_": [*fields, ("text", kinds.c_char * 5)]}
        return bytes(type("Row", (kinds.Structure,), members)(b"x", *range(1, len(fields)), b"abc"))

    assert made(leanctypes) == made(ctypes)


@pytest.mark.parametrize("given", [(5,), (b"abc",), (b"abc", 3), (b"abc", 9)])
def test_a_buffer_is_the_one_of_ctypes(given: tuple[Any, ...]) -> None:
    """Of a size, of a text with its zero, of a text in a given room."""
    assert leanctypes.create_string_buffer(*given).raw == ctypes.create_string_buffer(*given).raw


def test_a_call_of_this_process_tells_its_errno() -> None:
    """The one library that it opens: what a function gives, and why one failed."""
    library = leanctypes.PyDLL(None, use_errno=True)
    assert library.getpid() == os.getpid()
    leanctypes.set_errno(0)
    assert library.close(-1) == -1 and leanctypes.get_errno() == 9  # EBADF
    with pytest.raises(AttributeError):
        _ = library.no_such_function


@pytest.mark.parametrize("size", [0, 1, 65536, 200_001])
def test_contents_are_the_whole_file(tmp_path: Path, size: int) -> None:
    """However many reads it takes; also where a file of /proc says that it is empty."""
    (tmp_path / "file").write_bytes(b"x" * size)
    assert lean.contents(tmp_path / "file") == b"x" * size
    assert lean.contents("/proc/self/cmdline") == Path("/proc/self/cmdline").read_bytes()
    with pytest.raises(FileNotFoundError):
        lean.contents(tmp_path / "none")


HEAVY = {"ctypes", "types", "typing", "enum", "re", "pathlib", "json", "argparse", "socket", "signal", "contextlib",
         "functools", "collections", "shutil", "dataclasses", "subprocess", "inspect"}  # fmt: skip


@pytest.mark.parametrize("name", ["labkit.lean", "labkit.leanctypes", "labkit.leanjson"])
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
