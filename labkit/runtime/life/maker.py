"""Floor 3: create, from the runtime's side: what is acquired, in order, and given back when a step fails.

Owns: the folder, the cgroup, the process in its new namespaces (those that are there already are joined by a
middle process, which then makes the container as its own sister), the mappings of a user namespace and the
offsets of a time namespace, the hooks of the runtime's side.

Read: the OCI runtime specification, runtime.md, "Lifecycle"; clone3 in clone(2), setns(2), user_namespaces(7).
"""

from __future__ import annotations

import os
import sys

from labkit import errors, leanjson
from labkit.errors import LabError, Refused
from labkit.kernel import constants as C
from labkit.kernel import namespaces, process, syscalls
from labkit.lean import TYPE_CHECKING, Record, StrPath, signal
from labkit.runtime import channel
from labkit.runtime.become import filters, sealed, settle
from labkit.runtime.become.ready import Ready
from labkit.runtime.become.ready import ready as understand
from labkit.runtime.document import read
from labkit.runtime.files import root
from labkit.runtime.groups import driver
from labkit.runtime.life import born, hooks, store
from labkit.runtime.life.store import FIFO, Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from labkit.runtime.life.stepping import Gate
    from labkit.runtime.life.store import State

OCI = {kind.oci: kind for kind in namespaces.KINDS.values()}
# setns in this order: the user namespace first, since the others' rights may come from it (setns(2)).
JOINED = ("user", "ipc", "uts", "network", "pid", "cgroup", "time", "mount")


class Options(Record):
    """What the command line says beside config.json."""

    bundle: StrPath
    pid_file: str = ""
    console_socket: str = ""
    no_pivot: bool = False
    handed: tuple[int, Mapping[str, str]] = (0, {})  # descriptors from 3 on, and what tells of them
    wait: bool = True  # for `start`, in the FIFO
    stdio: tuple[int, int, int] = (0, 1, 2)
    keyring: bool = True  # a new session keyring
    rootless: bool = False  # a user may have no cgroup to give
    driver: str = driver.CGROUPFS
    gate: Gate | None = None  # stop after each step
    program: Sequence[str] = ()  # how to start this runtime again, sealed; empty: it may not be
    console: socket.socket | None = None  # instead of a path: one end of a pair
    stack: Callable[[str], None] | None = None  # see files.root.build
    ready: Callable[[State], None] | None = None  # called when all is made, before the program: what else it needs
    warn: Callable[[str], None] | None = None  # told what could not be kept; else it is printed


def create(place: Store, identifier: str, options: Options, config: dict[str, Any] | None = None) -> State:
    """Make the container; its process waits in the FIFO, or runs already without `wait`.

    config -- the bundle's document, where the caller has read it.
    Returns its state.  Raises LabError; then nothing is left behind.
    """
    if config is None:
        config = read.load(options.bundle)
    warn = options.warn or _warn
    for warning in read.warnings(config):
        warn(warning)
    if "process" not in config:
        raise errors.BadInput("config.json: process is missing", why="there is nothing to run", status=1)
    if options.program and _meets_others(config):
        sealed.seal(options.program)
    prepared = understand(config, cache=place.filters)
    root.folder(config, options.bundle)
    me = os.getpid()
    state: State = {
        "ociVersion": store.VERSION,
        "id": identifier,
        "status": "creating",
        "bundle": os.path.realpath(options.bundle),
        "annotations": config.get("annotations", {}),
        "created": store.now(),
        "owner": os.getuid(),
        "maker": {"pid": me, "start": process.start_time(me)},
        "keyring": options.keyring,
        "rootless": options.rootless,
    }
    driver.choose(state, config, options.driver, rootless=options.rootless)
    place.take(identifier)
    try:
        place.save(state)
        # As it was understood now: the bundle's may change, and this one is what exec and delete go by.
        store.replace(place.file(identifier, store.CONFIG), leanjson.dumps(config))
        known = state.copy()
        warnings, held = driver.create(state, config, rootless=options.rootless)
        for warning in warnings:
            warn(warning)
        if state != known:
            place.save(state)
        try:
            _make(place, state, config, prepared, options)
        finally:
            if held is not None:
                held.close()
    except OSError as error:
        _undo(place, state, config, warn)
        notes = " ".join(getattr(error, "__notes__", ()))
        raise LabError(f"the container could not be made: {error}", why=notes, status=1) from error
    except BaseException:
        _undo(place, state, config, warn)
        raise
    return state


def _undo(place: Store, state: State, config: dict[str, Any], warn: Callable[[str], None]) -> None:
    """give_back, of which only a warning is told: what went wrong before it is what the caller has to hear."""
    try:
        give_back(place, state, config)
    except LabError as error:
        warn(str(error))


def _warn(text: str) -> None:
    print(f"labkit-runtime: {text}", file=sys.stderr)


def _meets_others(config: dict[str, Any]) -> bool:
    """Whether programs of another container see this process before it has become the program.

    In a pid namespace that is there already they do (a pod's): the way through /proc/PID/exe must lead to a copy.
    """
    return any(one["type"] == "pid" and one.get("path") for one in config.get("linux", {}).get("namespaces", ()))


def give_back(place: Store, state: State, config: dict[str, Any]) -> None:
    """Kill what runs, remove the cgroup, run the hooks of the end, forget."""
    if state.get("pid") and process.is_alive(state["pid"], state.get("start")):
        process.kill(state["pid"], state.get("start"))
        process.await_end(state["pid"], state.get("start"))
    driver.remove(state, rootless=state.get("rootless", False))
    ended = store.public(state | {"status": "stopped"})
    hooks.run(config, "poststop", ended, state["bundle"], failed=lambda error: _warn(str(error)))
    place.forget(state["id"])


def _make(place: Store, state: State, config: dict[str, Any], prepared: Any, options: Options) -> None:
    tell(prepared, options)
    gate = options.gate
    if gate:
        gate.open(config)
    mine, theirs = channel.pair()
    if born.init_wanted(config):
        import labkit.runtime.become.init  # noqa: F401  the child will need it
    trees = root.prepare(config, options.bundle)
    console = options.console
    if config["process"].get("terminal"):
        born.ready_for_a_terminal()
        console = console or connect(options.console_socket)
    fifo = -1
    if options.wait:
        path = place.file(state["id"], FIFO)
        os.mkfifo(path, 0o622)
        # For writing too: who looks whether anybody waits (Store) opens it and closes it again, and that must not
        # be the end of what the process waits for.
        fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    heard, told = listening(prepared)
    given = born.Given(
        trees,
        fifo,
        list(options.stdio),
        console,
        told,
        *options.handed,
        options.no_pivot,
        options.keyring,
        os.geteuid() != 0,
        gate is not None,
        options.stack,
        options.ready is not None,
    )
    newborn = born.Newborn(config, options.bundle, prepared, theirs, given)
    pid = _clone(config, state["cgroup"], newborn, mine)
    theirs.close()
    for fd in (*trees.values(), *([fifo] if fifo >= 0 else [])):
        os.close(fd)
    state.update(pid=pid, start=process.start_time(pid))
    place.save(state)
    if gate:
        gate.pid = pid
        gate.after("cloned")
    linux = config.get("linux", {})
    if newborn.has_new("user"):  # one that is joined has its own
        from labkit.runtime.life import mapping

        mapping.write(pid, linux["uidMappings"], linux["gidMappings"])
    if any(one["type"] == "user" for one in linux.get("namespaces", ())):
        settle.from_outside(prepared, pid)
    seen = store.public(state)
    if gate:
        gate.after("mapped")
    mine.send({"state": seen})
    made = options.ready
    then = None if made is None else lambda: made(state)

    def mounted() -> None:
        try:
            for kind in hooks.OF_THE_MAKER:
                hooks.run(config, kind, seen, state["bundle"])
        except LabError as error:
            error.why += f"\n  step: {born.hooked.__name__}"  # as the child's own have it (born.report)
            raise

    hear(mine, pid, prepared, seen, heard, to_the_end=not options.wait, gate=gate, mounted=mounted, then=then)
    if gate:
        gate.after("executed", [])
    mine.close()
    if options.pid_file:
        store.replace(options.pid_file, str(pid), 0o644)
    state["status"] = "created" if options.wait else "running"
    place.save(state)


def tell(prepared: Ready, options: Options) -> None:
    """What was asked for and cannot be had here."""
    for warning in prepared.warnings:
        (options.warn or _warn)(warning)


def hear(line: channel.Channel, pid: int, prepared: Any, seen: dict[str, Any], listener: socket.socket | None = None,
         *, to_the_end: bool, gate: Gate | None = None, mounted: Callable[[], None] | None = None,
         then: Callable[[], None] | None = None) -> None:  # fmt: skip
    """Listen until the container is ready, or to the end, when execve has closed the line. Raises what it met.

    mounted -- called between the mounts and the pivot; then -- called when all is ready
    """
    ready = False
    while (message := line.receive()) is not None:
        if message.get("stage") == "ready":
            ready = True
            if not to_the_end:
                return
            if then:
                then()
                line.send({})
        if message.get("stage") == "step":
            assert gate is not None
            gate.after(message["step"], message["calls"])
            line.send({})
        elif message.get("stage") == "mounted":
            assert mounted is not None
            mounted()
            line.send({})
        elif message.get("stage") == "listener":
            assert listener is not None
            fd = filters.take(listener, pid)
            filters.send_listener(prepared.filter, seen, pid, fd)
            os.close(fd)
        elif "error" in message:
            words = message["error"]
            kind = getattr(errors, message["kind"])
            raise kind(words["what"], why=words["why"], next=words["next"], status=words["status"])
    if ready:
        return
    raise LabError("the container's process died while it was made", status=1,
                   why="it was killed, perhaps for want of memory: see memory.max")  # fmt: skip


def listening(prepared: Ready) -> tuple[socket.socket | None, socket.socket | None]:
    """A line for a seccomp listener's descriptor, both ends, if there is to be one."""
    if not (prepared.filter and prepared.filter.listens):
        return None, None
    import socket

    return socket.socketpair()


def connect(path: str) -> socket.socket:
    """The socket that a terminal's master is sent to. Raises LabError."""
    if not path:
        raise LabError("a terminal was asked for, and no --console-socket", status=1,
                       why="somebody must take the terminal's other end",
                       next="--console-socket PATH, or process.terminal: false")  # fmt: skip
    import socket

    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        line.connect(path)
    except OSError as error:
        raise LabError(f"cannot reach the console socket {path}", why=str(error), status=1) from error
    return line


def _clone(config: dict[str, Any], group: str, newborn: born.Newborn, mine: channel.Channel) -> int:
    """The container's process, in its cgroup and namespaces; its pid. Raises Refused."""
    entries = config.get("linux", {}).get("namespaces", ())
    new = 0
    for one in entries:
        # The cgroup namespace is left to the child: here it would get the wrong root.
        if not one.get("path") and one["type"] != "cgroup":
            new |= OCI[one["type"]].flag
    if any(one["type"] == "user" for one in entries):
        # The message queues of an IPC namespace belong to who makes it: to root in there, once it is that (born).
        new &= ~C.CLONE_NEWIPC
    joined = sorted((one for one in entries if one.get("path")), key=lambda one: JOINED.index(one["type"]))
    sys.stdout.flush()
    sys.stderr.flush()
    process.title_room()  # while /proc is the machine's
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if group else None
    offsets = config.get("linux", {}).get("timeOffsets", {})
    # Blocked, the child is born so: no signal can reach it while it still has this process's handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        if joined or offsets:
            pid = _through_a_sister(new, joined, offsets, fd, newborn, mine)
        else:
            pid = syscalls.clone3(new, cgroup_fd=fd)
            if pid == 0:
                mine.close()
                born.main(newborn)
    except OSError as error:
        from labkit.kernel import causes

        found = causes.explain(error, "clone3", (new,))
        raise Refused(f"cannot make the container's namespaces: {error}", why=found.why,
                      next=found.next or "labkit doctor", status=1) from error  # fmt: skip
    finally:
        if fd is not None:
            os.close(fd)
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _through_a_sister(new: int, joined: list[dict[str, Any]], offsets: dict[str, Any], group: int | None,
                      newborn: born.Newborn, mine: channel.Channel) -> int:  # fmt: skip
    """A middle process joins what is there, sets the clocks, and makes the container as this process's child."""
    answer, said = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            if offsets:
                syscalls.call("unshare", C.CLONE_NEWTIME)
                lines = [f"{clock} {one.get('secs', 0)} {one.get('nanosecs', 0)}\n" for clock, one in offsets.items()]
                with open("/proc/self/timens_offsets", "w") as file:
                    file.write("".join(lines))
                new &= ~C.CLONE_NEWTIME
            born.import_no_more()
            fds = [(os.open(one["path"], os.O_RDONLY | os.O_CLOEXEC), OCI[one["type"]].flag) for one in joined]
            for fd, flag in fds:
                syscalls.call("setns", fd, flag)
            pid = syscalls.clone3(new | C.CLONE_PARENT, cgroup_fd=group)
            if pid == 0:
                os.close(said)  # or the maker would wait for its end, and it for the maker
                mine.close()
                born.main(newborn)
            os.write(said, str(pid).encode())
        except BaseException as error:
            os.write(said, f"error {error}".encode())
        finally:
            os._exit(0)
    os.close(said)
    with os.fdopen(answer) as pipe:
        text = pipe.read()
    os.waitpid(middle, 0)
    if not text.isdigit():
        raise Refused("cannot enter the namespaces that config.json names", why=text.removeprefix("error "), status=1)
    # The sister may be in another pid namespace than ours, where it wrote the number that holds there.
    return int(text)
