"""What the tests of labkit.runtime.become stand on: a document, a child that becomes its program, what that says."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

from labkit.errors import LabError
from labkit.runtime.become import drop, execute, filters, settle
from labkit.runtime.become.ready import ready

NONE: dict[str, list[str]] = {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")}


def config(*arguments: str, linux: dict[str, Any] | None = None, **process: Any) -> dict[str, Any]:
    """A document whose process is this."""
    return {"process": {"args": list(arguments), "env": ["PATH=/usr/bin:/bin"], "cwd": "/", **process},
            "linux": linux or {}}  # fmt: skip


def child(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises in a forked child, whose standard output is read as well."""
    inward, outward = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(inward)
            os.dup2(outward, 1)
            os.write(1, b"ANSWER " + json.dumps(work()).encode())
        except LabError as error:
            os.write(1, f"{type(error).__name__} {error.status} {error}".encode())
        except BaseException:
            os.write(1, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(outward)
    with os.fdopen(inward) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if said.startswith("ANSWER "):
        return json.loads(said.removeprefix("ANSWER "))
    return said + (f"ended by {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "")


def become(document: dict[str, Any], before: Callable[[], None] = lambda: None, kept: int = 0) -> str:
    """What the program prints, or the error on the way to it."""

    def work() -> None:
        before()
        one = ready(document)
        settle.early(one)
        settle.settle(one)
        filters.before_dropping(one)
        drop.drop(one)
        execute.close_all(kept)
        path = execute.program(one)
        prepared = execute.prepare(one)
        filters.at_last(one)
        execute.execute(one, path, prepared)

    return str(child(work))


def status(*, linux: dict[str, Any] | None = None, before: Callable[[], None] = lambda: None,
           **process: Any) -> dict[str, str]:  # fmt: skip
    """/proc/self/status of the program, by field."""
    said = become(config("cat", "/proc/self/status", linux=linux, **process), before)
    assert said.startswith("Name:\tcat"), said
    return dict(line.split(":\t", 1) for line in said.splitlines())
