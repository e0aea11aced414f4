"""Ground floor: what starts fast: a few things of the standard library without what they drag along.

Owns: `Record` (typing.NamedTuple), `signal` (the C half of the module of that name), `contents` (open and read, without
buffer and decoder), TYPE_CHECKING and StrPath.
A container's start is measured in milliseconds; typing, enum, re, pathlib and what they import take twenty of them.
What runs before a container's program takes these instead, and everything else the library's own.  JSON is in
`leanjson`, ctypes in `leanctypes`.

Nothing here behaves otherwise than the original, and tests compare the two.  A type checker sees the originals.

Read: the library's documentation of typing.NamedTuple and signal.
"""

from __future__ import annotations

import os

StrPath = str | os.PathLike[str]
TYPE_CHECKING = False  # true to a type checker, as typing's own


def contents(path: StrPath) -> bytes:
    """The bytes of a small file, as /proc, /sys and a container's state are made of. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


if TYPE_CHECKING:
    import signal
    from typing import NamedTuple as Record
else:
    import _signal as signal  # the same functions with plain numbers; signal makes enums of them
    from _operator import itemgetter

    class _Fields(type):
        """How a class of records is made: its annotations are the fields, its attributes their defaults."""

        def __new__(meta, name, bases, space):
            names = tuple(space.get("__annotations__", ()))
            defaults = {field: space.pop(field) for field in names if field in space}
            getters = {field: property(itemgetter(place)) for place, field in enumerate(names)}
            more = {"__slots__": (), "_fields": names, "_field_defaults": defaults}
            return super().__new__(meta, name, bases, space | getters | more)

        def __call__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                rest = cls._fields[len(values) :]
                known = cls._field_defaults | named
                if len(values) > len(cls._fields) or not named.keys() <= set(rest) or not set(rest) <= known.keys():
                    raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}, not {values} and {named}")
                values += tuple([known[field] for field in rest])
            return tuple.__new__(cls, values)

    class Record(tuple, metaclass=_Fields):
        """A tuple whose fields have names; such a class is made in a hundredth of the time of a NamedTuple."""

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            if unknown := named.keys() - set(self._fields):
                raise TypeError(f"{type(self).__name__} has no {', '.join(unknown)}")
            return tuple.__new__(type(self), [named.get(*one) for one in self._asdict().items()])

        def __repr__(self):
            return (
                f"{type(self).__name__}({', '.join([f'{name}={value!r}' for name, value in self._asdict().items()])})"
            )

        def __getnewargs__(self):
            return (tuple(self),)


__all__ = ["TYPE_CHECKING", "Record", "StrPath", "contents", "signal"]
