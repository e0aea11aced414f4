"""Ground floor: JSON for what starts fast: the library's own scanner and encoder, without its wrapping.

Owns: `loads` and `dumps` with json's defaults.  The json package imports `re`, and that `enum`: 6 ms, for a config.json
that its C half reads in 0.1.  What that half cannot read or write goes to json, for its words.

Read: the library's documentation of json; RFC 8259.
"""

from __future__ import annotations

from labkit.lean import TYPE_CHECKING

make_scanner: Any = None
make_encoder: Any = None
text_of: Any = None

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Pairs = Callable[[list[tuple[str, Any]]], Any] | None
    Constant = Callable[[str], Any] | None
else:
    try:
        from _json import encode_basestring_ascii as text_of
        from _json import make_encoder, make_scanner
    except ImportError:  # a Python without the C half (PyPy)
        pass

SPACE = " \t\n\r"


class _Settings:
    """What the scanner asks for: json.JSONDecoder's defaults, and the caller's hook for objects."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int

    def __init__(self, pairs: Pairs, constant: Constant) -> None:
        self.object_pairs_hook = pairs
        self.parse_constant = constant or _leave_to_json


def _leave_to_json(text: str) -> Any:
    """NaN and Infinity are Python's, and json's own business."""
    raise ValueError(text)


def loads(document: str | bytes, *, pairs: Pairs = None, constant: Constant = None) -> Any:
    """What the text or the UTF-8 bytes say. Raises ValueError (json.JSONDecodeError, UnicodeDecodeError).

    pairs, constant -- json's object_pairs_hook and parse_constant
    """
    if make_scanner is not None:
        try:
            text = (document if isinstance(document, str) else document.decode()).strip(SPACE)
            value, end = make_scanner(_Settings(pairs, constant))(text, 0)
            if end == len(text):
                return value
        except (StopIteration, ValueError, RecursionError, SystemError):
            pass  # SystemError: it would raise what the json package defines, which nobody has imported
    import json

    return json.loads(document, object_pairs_hook=pairs, parse_constant=constant)


def dumps(value: Any) -> str:
    """The value as json.dumps writes it. Raises TypeError, ValueError as that does."""
    if make_encoder is not None:
        try:
            encode = make_encoder({}, _unknown, text_of, None, ": ", ", ", False, False, True)
            return "".join(encode(value, 0))
        except (TypeError, ValueError, RecursionError):
            pass
    import json

    return json.dumps(value)


def _unknown(value: Any) -> Any:
    raise TypeError(type(value).__name__)
