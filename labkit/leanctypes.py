"""Ground floor: ctypes for what starts fast: the C half of the library's module, without what it builds at import.

Owns: the types, the functions and the one library (this process) that a system call needs, under ctypes' own names.
ctypes itself defines thirty types, looks into `types` and `struct`, and takes a seventh of a container's start.  Its
structures and arrays are these, so that either may be handed to `labkit.kernel.syscalls.call`.

A type checker sees the originals, and tests compare the two.

Read: the library's documentation of ctypes.
"""

from __future__ import annotations

from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import (
        Array,
        PyDLL,
        Structure,
        addressof,
        byref,
        c_char,
        c_char_p,
        c_int32,
        c_int64,
        c_long,
        c_short,
        c_uint32,
        c_uint64,
        c_ushort,
        c_void_p,
        create_string_buffer,
        get_errno,
        set_errno,
        sizeof,
    )
else:
    from _ctypes import (
        FUNCFLAG_CDECL,
        FUNCFLAG_PYTHONAPI,
        FUNCFLAG_USE_ERRNO,
        Array,
        CFuncPtr,
        Structure,
        _SimpleCData,
        addressof,
        byref,
        dlopen,
        get_errno,
        set_errno,
        sizeof,
    )

    # The letters are those of `struct`; `long` has eight bytes on every 64-bit Linux.
    c_char, c_short, c_ushort, c_int32, c_uint32, c_long, c_uint64, c_char_p, c_void_p = (
        type(name, (_SimpleCData,), {"_type_": letter, "__module__": __name__})
        for name, letter in (
            ("c_char", "c"),
            ("c_short", "h"),
            ("c_ushort", "H"),
            ("c_int32", "i"),
            ("c_uint32", "I"),
            ("c_long", "l"),
            ("c_uint64", "L"),
            ("c_char_p", "z"),
            ("c_void_p", "P"),
        )
    )
    c_int64 = c_long

    class _Function(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI | FUNCFLAG_USE_ERRNO
        _restype_ = c_int32

    class PyDLL:
        """The functions of this process; the interpreter's lock is kept while one runs."""

        def __init__(self, name, use_errno):
            if name is not None or not use_errno:
                raise NotImplementedError("only this process, with errno: the rest is ctypes'")
            self._handle = dlopen(None, 0)

        def __getattr__(self, name):
            found = _Function((name, self))
            self.__dict__[name] = found
            return found

    def create_string_buffer(start, size=None):
        """A buffer of `size` bytes that begins with `start`; of `start` bytes, if that is a number."""
        if isinstance(start, int):
            return (c_char * start)()
        buffer = (c_char * (len(start) + 1 if size is None else size))()
        buffer.value = start
        return buffer


__all__ = [
    "Array",
    "PyDLL",
    "Structure",
    "addressof",
    "byref",
    "c_char",
    "c_char_p",
    "c_int32",
    "c_int64",
    "c_long",
    "c_short",
    "c_uint32",
    "c_uint64",
    "c_ushort",
    "c_void_p",
    "create_string_buffer",
    "get_errno",
    "set_errno",
    "sizeof",
]
