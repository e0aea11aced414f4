"""Reading floor: a snapshot as text, to be kept, sent, or recorded for a test.

Owns: the JSON form: a list for each kind of thing, in the order of the model's fields.

Read: labkit/observe/model.py; RFC 8259.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from labkit.errors import BadInput
from labkit.observe.model import Cgroup, Link, Namespace, Network, Process, Route, Snapshot
from labkit.observe.mountinfo import Mount

VERSION = 1


def to_json(snapshot: Snapshot) -> str:
    """The snapshot as one line of JSON; equal snapshots give equal text."""
    # Mappings whose keys are numbers have no form in JSON, and each thing knows its own key.
    return json.dumps(
        {
            "version": VERSION,
            "processes": [_process(one) for one in snapshot.processes.values()],
            "namespaces": list(snapshot.namespaces.values()),
            "mounts": sorted(snapshot.mounts.items()),
            "cgroups": [_cgroup(one) for one in snapshot.cgroups.values()],
            "networks": list(snapshot.networks.values()),
            "origins": sorted(snapshot.origins.items()),
        },
        separators=(",", ":"),
    )


def from_json(text: str) -> Snapshot:
    """The snapshot that `to_json` wrote. Raises BadInput for any other text."""
    try:
        found: dict[str, Any] = json.loads(text)
        if found["version"] != VERSION:
            raise ValueError(f"it is of version {found['version']}, and this labkit reads version {VERSION}")
        return Snapshot(
            {one.pid: one for one in map(_read_process, found["processes"])},
            {(one.kind, one.inode): one for one in map(_read(Namespace), found["namespaces"])},
            {inode: tuple(map(_read(Mount), table)) for inode, table in found["mounts"]},
            {one.path: one for one in map(_read(Cgroup), found["cgroups"])},
            {one.inode: one for one in map(_read_network, found["networks"])},
            {inode: tuple(map(_read(Mount), table)) for inode, table in found["origins"]},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput("this is no snapshot", why=f"{type(error).__name__}: {error}") from error


def _process(one: Process) -> Process:
    return one._replace(namespaces=dict(one.namespaces))


def _cgroup(one: Cgroup) -> Cgroup:
    return one._replace(limits=dict(one.limits), counters=dict(one.counters))


def _read(kind: Callable[..., Any]) -> Callable[[list[Any]], Any]:
    """A reader of one NamedTuple; what was a tuple within it becomes one again."""

    def read(fields: list[Any]) -> Any:
        return kind(*(tuple(value) if isinstance(value, list) else value for value in fields))

    return read


def _read_process(fields: list[Any]) -> Process:
    found: Process = _read(Process)(fields)
    if not isinstance(found.namespaces, Mapping):
        raise TypeError("a process without namespaces")
    return found


def _read_network(fields: list[Any]) -> Network:
    inode, links, routes, rules = fields
    return Network(
        inode,
        tuple(map(_read(Link), links)),
        tuple(map(_read(Route), routes)),
        None if rules is None else tuple(rules),
    )
