"""Floor 3: containers as they are remembered: one folder each, below the runtime's root.

Owns: ROOT/ID/ with state.json, a copy of config.json, and exec.fifo while the container waits to be started.
Whether it runs is never believed: the kernel is asked.

Read: the OCI runtime specification, runtime.md, "State".
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from labkit import leanjson
from labkit.errors import BadInput, InUse, NotFound
from labkit.kernel import process
from labkit.lean import TYPE_CHECKING, StrPath, contents

if TYPE_CHECKING:
    from typing import Any

    State = dict[str, Any]

VERSION = "1.2.1"
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")  # an id's, as runc has them
LONGEST = 1024
STATE, CONFIG, FIFO = "state.json", "config.json", "exec.fifo"


def default_root() -> str:
    """/run/labkit-runtime; for an ordinary user below $XDG_RUNTIME_DIR."""
    if os.geteuid() == 0:
        return "/run/labkit-runtime"
    return (os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}") + "/labkit-runtime"


class Store:
    """The containers below one root folder."""

    def __init__(self, root: StrPath) -> None:
        self.root = os.path.abspath(root)
        # Beside, and not in it: every folder in there is a container.
        self.filters = self.root + "-filters"

    def folder(self, identifier: str) -> str:
        """Where one is remembered. Raises BadInput for what cannot be an id."""
        if not 0 < len(identifier) <= LONGEST or not LETTERS.issuperset(identifier) or identifier in (".", ".."):
            raise BadInput(f"{identifier!r} cannot be a container's id", status=1,
                           why="an id is letters, digits, _ + - and .")  # fmt: skip
        return f"{self.root}/{identifier}"

    def file(self, identifier: str, name: str) -> str:
        """One of its files: STATE, CONFIG or FIFO. Raises BadInput."""
        return f"{self.folder(identifier)}/{name}"

    def take(self, identifier: str) -> str:
        """Make the folder of a new container: mkdir(2) lets one of two at once have it. Raises InUse, BadInput."""
        folder = self.folder(identifier)
        os.makedirs(self.root, 0o700, exist_ok=True)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError as error:
            raise InUse(f"there is a container {identifier!r} already", status=1,
                        next=f"another id, or labkit-runtime delete {identifier}") from error  # fmt: skip
        return folder

    def locked(self, identifier: str) -> Locked:
        """A `with` for the state of one container, which nobody else changes meanwhile. Raises NotFound."""
        return Locked(self, identifier)

    def load(self, identifier: str) -> State:
        """What is remembered of one; `status` as the kernel has it now. Raises NotFound."""
        # What every verb may ask for: `create` may have been killed before it could write all of it, or anything.
        state: State = {"ociVersion": VERSION, "id": identifier, "status": "stopped", "bundle": "", "annotations": {},
                        "cgroup": "", "pid": 0, "start": None}  # fmt: skip
        try:
            state |= leanjson.loads(contents(self.file(identifier, STATE)))
        except FileNotFoundError as error:
            if not os.path.isdir(self.folder(identifier)):
                raise self.unknown(identifier) from error
        state["status"] = self._status(state)
        return state

    def config(self, identifier: str) -> dict[str, Any]:
        """The document that the container was made from. Raises OSError, ValueError."""
        found: dict[str, Any] = leanjson.loads(contents(self.file(identifier, CONFIG)))
        return found

    def unknown(self, identifier: str) -> NotFound:
        """The error for an id that nobody has."""
        return NotFound(f"there is no container {identifier!r}", status=1, why=f"{self.root} has none of that id",
                        next="labkit-runtime list, with the same --root")  # fmt: skip

    def save(self, state: State) -> None:
        """Write state.json whole or not at all."""
        replace(self.file(state["id"], STATE), leanjson.dumps(state))

    def all(self) -> list[State]:
        """Every container's state, oldest first."""
        found = []
        for name in sorted(os.listdir(self.root)) if os.path.isdir(self.root) else []:
            try:
                found.append(self.load(name))
            except (NotFound, BadInput, ValueError):
                continue  # removed meanwhile, or not one of ours
        return sorted(found, key=lambda one: str(one.get("created", "")))

    def forget(self, identifier: str) -> None:
        """Remove the folder."""
        folder = self.folder(identifier)
        try:
            for name in os.listdir(folder):
                os.unlink(f"{folder}/{name}")
            os.rmdir(folder)
        except FileNotFoundError:
            pass  # somebody else was there first

    def _status(self, state: State) -> str:
        if not process.is_alive(state.get("pid", 0), state.get("start")):
            return "stopped" if state["status"] != "creating" or not _maker_lives(state) else "creating"
        if state["status"] == "creating":
            return "creating"
        if _waits(self.file(state["id"], FIFO)):
            return "created"
        try:
            with open(f"{state.get('cgroup') or '/nowhere'}/cgroup.freeze") as file:
                return "paused" if file.read().strip() == "1" else "running"
        except OSError:
            return "running"


class Locked:
    """The state of one container while the `with` lasts; saved again when it ends well and something has changed."""

    def __init__(self, place: Store, identifier: str) -> None:
        self.place = place
        self.identifier = identifier

    def __enter__(self) -> State:
        folder = self.place.folder(self.identifier)
        try:
            self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.place.unknown(self.identifier) from error
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            self.state = self.place.load(self.identifier)
        except BaseException:
            os.close(self.fd)
            raise
        self.before = leanjson.dumps(self.state)
        return self.state

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            there = os.path.isdir(self.place.folder(self.identifier))
            if kind is None and there and leanjson.dumps(self.state) != self.before:
                self.place.save(self.state)
        finally:
            os.close(self.fd)  # and with it goes the lock


def replace(file: str, text: str, mode: int = 0o600) -> None:
    """Write a file whole or not at all; without a mode its owner's alone: in a document stand passwords."""
    draft = f"{file}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(fd, "wb") as opened:
        opened.write(text.encode())
    os.rename(draft, file)


def _waits(fifo: str) -> bool:
    """Whether a container's process still waits to be started.

    The file alone does not tell: `start` may have been killed before it could remove it.  The process holds it open
    until execve.
    """
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):  # nobody has it open for reading
            return False
        raise
    return True


def _maker_lives(state: State) -> bool:
    maker = state.get("maker", {})
    return process.is_alive(maker.get("pid", 0), maker.get("start"))


def public(state: State) -> dict[str, Any]:
    """The state as the specification has it: for hooks, and for the verb `state`."""
    found = {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "status": state["status"],
        "pid": state.get("pid", 0) if state["status"] != "stopped" else 0,
        "bundle": state["bundle"],
    }
    if state.get("annotations"):
        found["annotations"] = state["annotations"]
    return found


def now() -> str:
    """The time as RFC 3339 has it, with nanoseconds."""
    whole, part = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{part:09}Z"
