"""Floor 3: a bundle's config.json, read and checked.

Owns: the file, JSON's own errors in words, and the order of the checks: the types first, so
that the rules may take them for granted.

Read: the OCI runtime specification, bundle.md and config.md.
"""

from __future__ import annotations

import os
import stat

from labkit import leanjson
from labkit.errors import BadInput, NotFound
from labkit.lean import TYPE_CHECKING, StrPath
from labkit.runtime.document import fields, rules

if TYPE_CHECKING:
    from typing import Any, NoReturn

    Config = dict[str, Any]  # the document itself; its schema is the specification's

NAME = "config.json"
LARGEST = 16 << 20  # bytes: a thousand times what engines write


def load(bundle: StrPath) -> Config:
    """The checked document of the bundle in the folder `bundle`.

    A field that is null counts as not there, as it does for the runtimes written in Go.
    Raises NotFound for a folder or a file that is not there, BadInput for what it holds.
    """
    file = os.path.join(bundle, NAME)
    try:
        raw = _bytes(file)
    except FileNotFoundError as error:
        there = os.path.isdir(bundle)
        raise NotFound(
            f"there is no {file if there else bundle}",
            why="a bundle is a folder with a config.json and the root file system that it names",
            next="labkit-runtime spec writes a config.json into the present folder" if there else "check --bundle",
            status=1,
        ) from error
    except OSError as error:
        raise BadInput(f"cannot read {file}", why=f"{error.strerror} (errno {error.errno})", status=1) from error
    return parse(raw, file)


def process(path: StrPath) -> Config:
    """The checked `process` object, alone in a file: what `exec --process` is given. Raises NotFound, BadInput."""
    file = os.fspath(path)
    wanted: Config = _json(_opened(file), file)
    check_process(wanted)
    return wanted


def resources(raw: bytes | None, name: str) -> Config:
    """The checked `linux.resources` of a document: these bytes, or the file `name`. Raises NotFound, BadInput."""
    wanted: Config = _json(_opened(name) if raw is None else raw, name)
    fields.RESOURCES.check(wanted, "linux.resources")
    return wanted


def _opened(file: str) -> bytes:
    try:
        return _bytes(file)
    except OSError as error:
        kind = NotFound if isinstance(error, FileNotFoundError) else BadInput
        raise kind(f"cannot read {file}", why=f"{error.strerror} (errno {error.errno})", status=1,
                   next="a JSON object such as stands in config.json") from error  # fmt: skip


def _bytes(file: str) -> bytes:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO is not waited for
    with open(fd, "rb", buffering=0) as opened:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadInput(f"{file} is no regular file", why="a document is read once, and whole", status=1)
        raw = opened.read(LARGEST + 1) or b""
    if len(raw) > LARGEST:
        raise BadInput(f"{file} is larger than {LARGEST >> 20} MiB", why="no engine writes such a one", status=1)
    return raw


def parse(raw: bytes, name: str = NAME) -> Config:
    """The checked document that these bytes hold; `name` is for messages. Raises BadInput.

    Of several fields of one name the last one counts, as for the runtimes written in Go.
    """
    config = _json(raw, name)
    check(config)
    document: Config = config
    return document


def _json(raw: bytes, name: str) -> Any:
    try:
        return leanjson.loads(raw.decode(), pairs=_present, constant=_no_number)
    except ValueError as error:
        raise _no_json(name, error) from error
    except RecursionError as error:
        raise BadInput(f"{name} is nested too deeply", why="no document needs a thousand levels", status=1) from error


def _no_json(name: str, error: ValueError) -> BadInput:
    import json

    if isinstance(error, UnicodeDecodeError):
        return BadInput(f"{name} is not JSON", why=f"byte {error.start} is no UTF-8", status=1)
    if not isinstance(error, json.JSONDecodeError):  # a number of thousands of digits
        return BadInput(f"{name} cannot be read", why=str(error), status=1)
    lines = error.doc.splitlines()
    line = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
    return BadInput(
        f"{name} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}",
        why=f"the line is: {line[:80]}" if line else "the text ends there",
        status=1,
    )


def check(config: Any) -> None:
    """Raise BadInput for the first thing in a document that is not as the specification wants it."""
    fields.CONFIG.check(config, "")
    rules.check(config)


def check_process(wanted: Any) -> None:
    """Raise BadInput for the first thing in a `process` object of its own that is not as it should be."""
    fields.PROCESS.check(wanted, "process")
    rules.check_process(wanted)


def warnings(config: Config) -> list[str]:
    """What is passed over in a checked document, though somebody may have meant it: one sentence each."""
    return list(rules.warnings(config))


def _present(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value is not None}


def _no_number(text: str) -> NoReturn:
    raise BadInput(f"config.json: {text} is no number of JSON", why="Python writes it so, and RFC 8259 has none",
                   status=1)  # fmt: skip
