"""Floor 3: the verbs after create: start, kill, delete, and running to the end.

Owns: in which state each may be asked, and what it leaves.

Read: the OCI runtime specification, runtime.md, "Operations".
"""

from __future__ import annotations

import errno
import os

from labkit.errors import BadInput, LabError, NotFound, Refused
from labkit.kernel import cgroups, process
from labkit.lean import TYPE_CHECKING, signal
from labkit.runtime.groups import cgroupfs
from labkit.runtime.life import hooks, maker, store
from labkit.runtime.life.maker import Options
from labkit.runtime.life.store import FIFO, Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from labkit.runtime.life.store import State


def start(place: Store, identifier: str) -> None:
    """Let a created container run its program. Raises Refused in any other state, LabError for a failed hook."""
    with place.locked(identifier) as state:
        if state["status"] != "created":
            raise Refused(f"cannot start container {identifier}", why=f"it is {state['status']}, and not created",
                          status=1)  # fmt: skip
        path = place.file(identifier, FIFO)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise Refused(f"cannot start container {identifier}", why="its process has ended meanwhile",
                          status=1) from error  # fmt: skip
        try:
            os.write(fd, b"\0")
        finally:
            os.close(fd)
        os.unlink(path)
        state["status"] = "running"
    after_start(state, place.config(identifier))


def after_start(state: State, config: dict[str, Any]) -> None:
    """The hooks that follow the start; one that fails ends the container (runtime.md, step 10)."""
    try:
        hooks.run(config, "poststart", store.public(state), state["bundle"])
    except LabError:
        process.kill(state["pid"], state["start"])
        raise


def number_of(text: str) -> int:
    """A signal's number, of KILL, SIGKILL or 9. Raises BadInput."""
    import signal

    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    found = getattr(signal, name, None)
    if not isinstance(found, signal.Signals):
        raise BadInput(f"there is no signal {text!r}", next="kill -l lists them", status=1)
    return int(found)


def kill(place: Store, identifier: str, text: str = "SIGTERM", *, everyone: bool = False) -> None:
    """Send a signal to process 1, or to everybody in the cgroup. Raises Refused for an ended container.

    SIGKILL ends everybody where the end of process 1 does not: in a pid namespace that is others' too, as with runc.
    """
    number = number_of(text)
    state = place.load(identifier)
    if number == signal.SIGKILL and (everyone or not _ends_with_its_first(place, identifier)) and _end(state):
        return
    if everyone:
        with _Still(state):
            for pid in members(state):
                process.kill(pid, process.start_time(pid), number)
        return
    if state["status"] == "stopped" or not (state["pid"] and process.kill(state["pid"], state["start"], number)):
        raise Refused(f"container {identifier} is not running", why="its process has ended", status=1,
                      next=f"labkit-runtime delete {identifier}")  # fmt: skip
    if number == signal.SIGKILL and state["status"] == "paused":
        cgroups.thaw(state["cgroup"])  # a frozen process dies only when it goes on


class _Still:
    """Everybody in the cgroup stands still meanwhile, so that nobody is forked past the signal; as runc has it."""

    def __init__(self, state: State) -> None:
        self.group = state["cgroup"] if state["status"] in ("created", "running") else ""
        if self.group and os.getpid() in members(state):
            self.group = ""  # or nobody would be left to let it go on

    def __enter__(self) -> None:
        self._put(cgroups.freeze)

    def __exit__(self, *_: object) -> None:
        self._put(cgroups.thaw)

    def _put(self, how: Callable[[str], None]) -> None:
        if self.group:
            try:
                how(self.group)
            except NotFound:  # it has ended meanwhile, or the signal has ended it
                self.group = ""


def _ends_with_its_first(place: Store, identifier: str) -> bool:
    """Whether the kernel kills the rest with the container's process: it is 1 in numbers of its own."""
    try:
        config = place.config(identifier)
    except (OSError, ValueError):
        return False  # killed before it could be copied
    return any(one["type"] == "pid" and not one.get("path") for one in config.get("linux", {}).get("namespaces", ()))


def _end(state: State) -> bool:
    """Kill the whole cgroup at once, which nobody escapes by forking; False where nobody is in it, or none is."""
    try:
        if not (state["cgroup"] and members(state)):
            return False
        cgroups.kill(state["cgroup"])
    except NotFound:  # it has ended meanwhile
        return False
    return True


def members(state: State) -> list[int]:
    """The pids of everybody in the container, as this process counts."""
    if state["cgroup"]:
        return cgroupfs.processes(state["cgroup"])
    return _of_namespace(state["pid"]) if state["pid"] and state["status"] != "stopped" else []


def _of_namespace(pid: int) -> list[int]:
    """Without a cgroup: who is in the pid namespace of process `pid`."""
    wanted, found = os.readlink(f"/proc/{pid}/ns/pid"), []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == wanted:
                found.append(int(name))
        except OSError:
            continue  # it has ended, or is none of this user's
    return sorted(found)


def _standing(state: State) -> str:
    """The cgroup that stands still or goes on. Raises Refused without one."""
    if not state["cgroup"]:
        raise Refused(f"container {state['id']} has no cgroup", why="only the processes of a cgroup can be frozen",
                      next="a user with a cgroup of one's own (systemd-run --user --scope -p Delegate=yes)",
                      status=1)  # fmt: skip
    return str(state["cgroup"])


def delete(place: Store, identifier: str, *, force: bool = False) -> None:
    """Forget an ended container; with `force` kill it first, and one that is not there is fine.

    Raises Refused for one that lives.
    """
    try:
        # Locked: of several at once, one runs the hooks of the end.
        with place.locked(identifier) as state:
            if state["status"] not in ("stopped", "created") and not force:
                raise Refused(f"cannot delete container {identifier}", why=f"it is {state['status']}", status=1,
                              next=f"labkit-runtime kill {identifier} KILL, or delete --force")  # fmt: skip
            try:
                config = place.config(identifier)
            except (OSError, ValueError):
                config = {}  # killed before it could be copied
            maker.give_back(place, state, config)
    except NotFound:
        if not force:
            raise


def pause(place: Store, identifier: str) -> None:
    """Let everything in it stand still. Raises Refused."""
    with place.locked(identifier) as state:
        if state["status"] not in ("running", "created"):
            raise Refused(f"cannot pause container {identifier}", why=f"it is {state['status']}", status=1)
        cgroups.freeze(_standing(state))


def resume(place: Store, identifier: str) -> None:
    """Let it go on. Raises Refused."""
    with place.locked(identifier) as state:
        if state["status"] != "paused":
            raise Refused(f"cannot resume container {identifier}", why=f"it is {state['status']}, and not paused",
                          status=1)  # fmt: skip
        cgroups.thaw(_standing(state))


def run(place: Store, identifier: str, options: Options, *, detach: bool = False, keep: bool = False) -> int:
    """create and start; the exit status, once it has ended and is forgotten, or 0 at once with `detach`."""
    from labkit.runtime.document import read

    config = read.load(options.bundle)
    terminal = config.get("process", {}).get("terminal", False)
    if terminal and detach and not options.console_socket:
        raise BadInput("--detach with a terminal needs --console-socket", why="nobody would hold it", status=1)
    if terminal and not options.console_socket:
        sized(config["process"])
    with Terminal(terminal and not options.console_socket) as own:
        state = maker.create(place, identifier, options._replace(wait=False, console=own.line), config)
        try:
            after_start(state, config)
            if detach:
                return 0
            status = to_the_end(state["pid"], own)
        except BaseException:
            if not detach:
                maker.give_back(place, state, config)
            raise
    if not keep:
        maker.give_back(place, state, config)
    return status


def execute(place: Store, identifier: str, wanted: dict[str, Any], options: Options, *, detach: bool = False,
            paused: bool = False) -> int:  # fmt: skip
    """exec; the exit status, or 0 at once with `detach`.

    paused -- also in a container that stands still: the process is there when it goes on
    """
    from labkit.runtime.life import join

    state = place.load(identifier)
    own = bool(wanted.get("terminal")) and not options.console_socket
    if own and detach:
        raise BadInput("--detach with a terminal needs --console-socket", why="nobody would hold it", status=1)
    if own:
        sized(wanted)
    with Terminal(own) as terminal:
        pid = join.execute(place, state, wanted, options._replace(console=terminal.line), paused=paused)
        if options.pid_file:
            store.replace(options.pid_file, str(pid), 0o644)
        return 0 if detach else to_the_end(pid, terminal)


def sized(wanted: dict[str, Any]) -> None:
    """Give a process that is to have this process's terminal the size of it, if the document says none."""
    from labkit.runtime.console import size

    if found := size():
        wanted.setdefault("consoleSize", found)


class Terminal:
    """A `with` for a container's terminal, if wanted: a pair of sockets, through which its master comes."""

    def __init__(self, wanted: bool) -> None:
        self.line: socket.socket | None = None  # the container's end
        self.ours: socket.socket | None = None
        if wanted:
            import socket

            self.line, self.ours = socket.socketpair()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self.line, self.ours):
            if end is not None:
                end.close()

    def attend(self, output: int = 1) -> None:
        """Carry the terminal's bytes until the last process inside has closed it; without one, do nothing."""
        if self.ours is None:
            return
        import socket

        from labkit.runtime.console import Console

        _, fds, _, _ = socket.recv_fds(self.ours, 64, 1)
        console = Console(fds[0])
        console.resize()
        console.copy(output)


def to_the_end(pid: int, terminal: Terminal) -> int:
    """Pass signals on, carry the terminal's bytes, and wait; 128 + signal when a signal ended it."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    terminal.attend()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
