"""Floor 3: `labkit stats`: what containers use, as `docker stats` shows it.

Owns: the verb, its columns and its JSON, with docker's names and units.  The reading is
labkit.observe.usage.

Read: docker-stats(1).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.observe import usage
from labkit.runtime import state
from labkit.runtime.parser import Parser

HEAD = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
KEYS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")  # docker's, with Container
PERIOD = 1.0  # seconds between two samples
CLEAR = "\x1b[H\x1b[J"

Row = tuple[str, ...]


def stats(argv: list[str]) -> int:
    """labkit stats [--no-stream] [--format json] [NAME ...]"""
    parser = Parser(prog="labkit stats", description="CPU, memory, network, disk and processes of running containers")
    parser.add_argument("--no-stream", action="store_true", help="once, over one second, and end")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="json: a line a container")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all that run, when none is named")
    given = parser.parse_args(argv)
    top = _top()
    for name in given.names:
        state.find(name)  # one that is not there is said before anything is measured
    before = _samples(given.names, top)
    try:
        while True:
            time.sleep(PERIOD)
            after = _samples(given.names, top)
            rows = [row(one, before.get(one["id"]), after.get(one["id"])) for one in _containers(given.names)]
            print(_json(rows) if given.format == "json" else _table(rows, not given.no_stream), end="", flush=True)
            if given.no_stream:
                return 0
            before = after
    except KeyboardInterrupt:
        return 0


def _top() -> Path:
    from labkit.kernel import cgroups

    return cgroups.root()


def _containers(names: list[str]) -> list[dict[str, Any]]:
    """Those that are named, else all that run; one that is removed meanwhile is left out."""
    if not names:
        return [one for one in state.load_all() if one["status"] == "running"]
    found = []
    for name in names:
        try:
            found.append(state.find(name))
        except LabError:
            continue
    return found


def _samples(names: list[str], top: Path) -> dict[str, usage.Sample]:
    """{id: sample} of the containers that run."""
    found = {}
    for one in _containers(names):
        if one["status"] != "running" or not one["cgroup"]:
            continue
        try:
            found[one["id"]] = usage.take(top / one["cgroup"].lstrip("/"), one["pid"])
        except (LabError, OSError):
            continue  # it has ended meanwhile
    return found


def row(one: dict[str, Any], before: usage.Sample | None, after: usage.Sample | None) -> Row:
    """The columns of a container; dashes for one that does not run (docker: two of them)."""
    if after is None:
        return (one["id"][:12], one["name"], "--", "-- / --", "--", "--", "--", "--")
    found = usage.between(before or after, after)
    return (
        one["id"][:12],
        one["name"],
        f"{100 * found.cpu:.2f}%",
        f"{binary(after.memory)} / {binary(after.limit)}",
        f"{100 * found.memory_share:.2f}%",
        f"{decimal(after.received)} / {decimal(after.sent)}",
        f"{decimal(after.read)} / {decimal(after.written)}",
        str(after.pids),
    )


def binary(count: float) -> str:
    """Bytes in units of 1024 with four digits, as docker writes memory: 1.5MiB."""
    return _unit(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"), 4)


def decimal(count: float) -> str:
    """Bytes in units of 1000 with three digits, as docker writes what moved: 1.2kB."""
    return _unit(count, 1000, ("B", "kB", "MB", "GB", "TB"), 3)


def _unit(count: float, base: int, units: tuple[str, ...], digits: int) -> str:
    place = 0
    while count >= base and place < len(units) - 1:
        count, place = count / base, place + 1
    return f"{count:.{digits}g}{units[place]}"


def _json(rows: list[Row]) -> str:
    documents = [dict(zip(KEYS, one, strict=True), Container=one[0]) for one in rows]
    return "".join(json.dumps(document, sort_keys=True) + "\n" for document in documents)


def _table(rows: list[Row], stream: bool) -> str:
    lines = [HEAD, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = "".join("   ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)
    return (CLEAR if stream and sys.stdout.isatty() else "") + text
