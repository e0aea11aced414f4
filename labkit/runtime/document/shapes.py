"""Floor 3: the shapes that a value of config.json can have.

Owns: a small language for them, in which the table of labkit.runtime.document.fields is
written, and the walk that compares a value with its shape and names the first place that differs.

It is the part of JSON Schema that the specification's own schema uses; a test compares the
two.  Written here because it runs before every start: the library takes 60 ms to import.

Read: https://json-schema.org, for the whole of it; RFC 8259 for JSON.
"""

from __future__ import annotations

from labkit.errors import BadInput
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

# What a person calls the types of JSON.
TYPES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number with a point", list: "a list",
         dict: "an object", type(None): "null"}  # fmt: skip


class Shape:
    """What a value may be; `check` raises BadInput with the place of what it is not."""

    def check(self, value: Any, place: str) -> None:
        """Raise BadInput unless `value`, which stands at `place`, has this shape."""
        raise NotImplementedError


class Of(Shape):
    """A value of one type, and no more said of it."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def check(self, value: Any, place: str) -> None:
        # type(), and not isinstance: True is an int to Python, and none to JSON.
        if type(value) is not self.kind:
            differs(place, TYPES[self.kind], value)


class Text(Shape):
    """A text that the kernel can be told: none of its system calls takes a NUL, or half of a surrogate pair."""

    def check(self, value: Any, place: str) -> None:
        if type(value) is not str:
            differs(place, TYPES[str], value)
        if "\0" in value:
            wrong(place, "holds a NUL", f"the kernel would take it for the end: {value!r:.60}")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                wrong(place, "cannot be written as UTF-8", f"it has half of a surrogate pair: {value!r:.60}",
                      "correct the \\u escape")  # fmt: skip


class Whole(Shape):
    """A whole number from `low` to `high`."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def check(self, value: Any, place: str) -> None:
        if type(value) is not int:
            differs(place, "a whole number", value)
        if not self.low <= value <= self.high:
            differs(place, f"a whole number from {self.low} to {self.high}", value)


class Word(Shape):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def check(self, value: Any, place: str) -> None:
        if type(value) is not str or value not in self.words:
            differs(place, f"one of {', '.join(self.words)}", value)


class Like(Shape):
    """A text that an expression matches from end to end; `meant` says it in words."""

    def __init__(self, pattern: str, meant: str) -> None:
        self.pattern, self.meant = pattern, meant

    def check(self, value: Any, place: str) -> None:
        import re  # here: few documents have such a field, and it takes 8 ms

        if type(value) is not str or not re.fullmatch(self.pattern, value):
            differs(place, self.meant, value)


class Capitals(Shape):
    """A name that begins so, and goes on with at least one capital letter and nothing else."""

    def __init__(self, start: str, meant: str) -> None:
        self.start, self.meant = start, meant

    def check(self, value: Any, place: str) -> None:
        rest = value[len(self.start) :] if type(value) is str and value.startswith(self.start) else ""
        if not (rest.isascii() and rest.isalpha() and rest.isupper()):
            differs(place, self.meant, value)


class Each(Shape):
    """A list whose every item has one shape."""

    def __init__(self, item: Shape, *, least: int = 0) -> None:
        self.item, self.least = item, least

    def check(self, value: Any, place: str) -> None:
        if type(value) is not list:
            differs(place, "a list", value)
        if len(value) < self.least:
            differs(place, f"a list of at least {self.least}", value)
        for number, item in enumerate(value):
            self.item.check(item, f"{place}[{number}]")


class Named(Shape):
    """An object with any names, whose every value has one shape."""

    def __init__(self, value: Shape) -> None:
        self.value = value

    def check(self, value: Any, place: str) -> None:
        if type(value) is not dict:
            differs(place, "an object", value)
        for name, one in value.items():
            NAME.check(name, f"a name in {place}")
            self.value.check(one, f"{place}.{name}")


NAME = Text()


class Object(Shape):
    """An object with these fields; a name that ends in ! must be there, one that is not listed is passed over.

    "Runtimes MUST NOT generate an error if they encounter an unknown property" (config.md, "Extensibility").
    """

    def __init__(self, fields: Mapping[str, Shape]) -> None:
        self.fields = {name.rstrip("!"): shape for name, shape in fields.items()}
        self.required = [name.rstrip("!") for name in fields if name.endswith("!")]

    def check(self, value: Any, place: str) -> None:
        if type(value) is not dict:
            differs(place, "an object", value)
        for name in self.required:
            if name not in value:
                inside = f"{place}.{name}" if place else name
                wrong(inside, "is missing", "the specification says that it MUST be there")
        for name, one in value.items():
            if (shape := self.fields.get(name)) is not None:
                shape.check(one, f"{place}.{name}" if place else name)


def differs(place: str, wanted: str, value: Any) -> NoReturn:
    """Raise BadInput: what stands at `place` is not what is wanted there."""
    shown = repr(value)
    if type(value) in (dict, list):
        shown = TYPES[type(value)] + (f" of {len(value)}" if type(value) is list else "")
    wrong(place or "the document", f"must be {wanted}", f"it is {shown if len(shown) < 80 else shown[:77] + '...'}")


def wrong(place: str, what: str, why: str = "", next: str = "") -> NoReturn:
    """Raise BadInput about what stands at `place`."""
    raise BadInput(f"config.json: {place} {what}", why=why, next=next, status=1)
