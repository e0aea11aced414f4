"""Floor 1: calls and writes whose failure is explained; the explaining is imported when something fails.

Owns: `attempt`, `noted`, `write`: make a call, or write a file of /proc or of a cgroup; and `teach`.  What may have
been the cause is in labkit.kernel.causes, a table with a finder a row, which takes as long to import as
a whole container to start.

Read: errno(3).
"""

from __future__ import annotations

import os

from labkit.kernel.causes_words import Listener
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, NoReturn


def teach(error: OSError, what: str, name: str, arguments: tuple[Any, ...], said: str = "") -> NoReturn:
    """Raise the failure of a call as a LabError: what was done, the kernel's words (`said`), the cause, the advice."""
    from labkit.kernel import causes

    causes.teach(error, what, name, arguments, said)


def attempt(what: str, name: str, *arguments: Any) -> int:
    """Make a system call; its failure is a LabError with the kernel's words, the cause and the advice."""
    with Listener(str(arguments[2] or "") if name == "mount" else "") as listener:
        try:
            return call(name, *arguments)
        except OSError as error:
            teach(error, what, name, arguments, listener.heard())


def noted(name: str, *arguments: Any) -> int:
    """Make a system call; its failure is the OSError with the cause and the advice as its note."""
    try:
        return call(name, *arguments)
    except OSError as error:
        from labkit.kernel import causes

        causes.note(error, name, arguments)
        raise


def write(path: str | os.PathLike[str], text: str, what: str = "") -> None:
    """Write `text` to a file of /proc or of a cgroup in one write(2); a failure is a LabError that explains it."""
    path = os.fspath(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        teach(error, what or f"cannot write {text!r} to {path}", os.path.basename(path), (path, text))
