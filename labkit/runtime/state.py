"""Floor 3: containers as they are remembered on disk.

Owns: one folder a container, $LABKIT_DATA/containers/ID, with its config.json, its
state.json and its log; names, and finding a container by name or by the first digits of
its id.  Whether it runs is never believed: the kernel is asked.

Read: the OCI runtime specification, "State".
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.errors import BadInput, InUse, NotFound
from labkit.kernel import process

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # Docker's own
FIRST = ("brisk", "calm", "clear", "deep", "early", "even", "fair", "fresh", "keen", "light", "neat", "plain", "quiet")
SECOND = (
    "anchor",
    "barge",
    "canal",
    "crane",
    "dock",
    "ferry",
    "harbor",
    "jetty",
    "lock",
    "pier",
    "quay",
    "tug",
    "wharf",
)


def folder(identifier: str = "") -> Path:
    """Where containers lie; with an id, where that one lies."""
    return paths.data() / "containers" / identifier


def boot_id() -> str:
    """Which boot this is: process numbers mean nothing across boots."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def locked() -> Iterator[None]:
    """One at a time: names are looked up and taken under this lock."""
    folder().mkdir(parents=True, exist_ok=True)
    fd = os.open(folder() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        # By name: a container's process that is born meanwhile holds the same open file.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def save(state: dict[str, Any]) -> None:
    """Write state.json whole or not at all."""
    file = folder(state["id"]) / "state.json"
    draft = file.with_suffix(f".{os.getpid()}")  # of its own: a container's keeper and `network connect` may meet
    draft.write_text(json.dumps(state, indent=1))
    draft.rename(file)


def load_all() -> list[dict[str, Any]]:
    """Every container's state, oldest first, `status` as the kernel has it now."""
    states = []
    for file in folder().glob("*/state.json"):
        try:
            state: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError:  # removed meanwhile
            continue
        if state["status"] != "stopped" and not is_running(state):
            state["status"] = "stopped"
        states.append(state)
    return sorted(states, key=lambda state: state["created"])


def is_running(state: dict[str, Any]) -> bool:
    """Whether the container's process 1 still lives."""
    return bool(state.get("pid")) and state["boot"] == boot_id() and process.is_alive(state["pid"], state["start"])


def find(name: str) -> dict[str, Any]:
    """The container called `name`, or whose id begins so. Raises NotFound."""
    states = load_all()
    by_name = [state for state in states if state["name"] == name]
    by_id = [state for state in states if name and state["id"].startswith(name)]
    for found in (by_name, by_id):
        if len(found) == 1:
            return found[0]
    if len(by_id) > 1:
        raise NotFound(f"{name!r} is the beginning of {len(by_id)} container ids", next="write more digits")
    known = ", ".join(state["name"] for state in states) or "there are none"
    raise NotFound(f"there is no container {name!r}", why=f"containers: {known}", next="labkit ps --all", status=1)


def take_name(name: str | None) -> str:
    """A free name: the one asked for, or a made-up one. Call with the lock held.

    Raises InUse, naming the container that has it; BadInput for what cannot be a name.
    """
    if name is not None and not NAME.fullmatch(name):
        raise BadInput(
            f"{name!r} cannot be a container's name",
            why="a name is a letter or digit, and then letters, digits, _ . or -",
            next="for example --name web-1",
        )
    taken = {state["name"]: state for state in load_all()}
    made_up = name is None
    while name is None or (made_up and name in taken):
        first, second, *number = os.urandom(4)  # not the random module: it costs 2 ms to import
        name = f"{FIRST[first % len(FIRST)]}_{SECOND[second % len(SECOND)]}_{int.from_bytes(number) % 1000:03}"
    if name in taken:
        holder = taken[name]
        raise InUse(
            f"the name {name!r} is taken",
            why=f"container {holder['id'][:12]} ({holder['status']}) has it",
            next=f"labkit rm --force {name}, or another --name",
        )
    return name
