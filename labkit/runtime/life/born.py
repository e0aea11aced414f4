"""Floor 3: the container's side of its birth: the steps, in the order in which the kernel is asked.

Owns: STEPS, a list that `run` walks from the first to the last, and that a step-by-step start walks as far as
it is told.  What each step does stands in the floors below: files, become.

The process is single-threaded from its clone3 to its execve, dies with its maker until it is created, and can
neither be looked into nor traced (PR_SET_DUMPABLE) while it holds anything of the host's.

Read: the OCI runtime specification, runtime.md, "Lifecycle"; config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import fcntl
import os
import select
import sys

from labkit.errors import LabError
from labkit.kernel import constants as C
from labkit.kernel import loopback, namespaces, process, syscalls
from labkit.kernel.syscalls import call
from labkit.lean import TYPE_CHECKING, Record, StrPath, signal
from labkit.runtime.become import drop, execute, filters, settle
from labkit.runtime.become.ready import Ready
from labkit.runtime.channel import Channel
from labkit.runtime.files import devices, root
from labkit.runtime.life import hooks

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    Step = Callable[["Newborn"], None]


INIT = "labkit.init"  # the annotation that asks for an init of this runtime's as process 1


class Newborn:
    """What the process carries through its steps."""

    def __init__(self, config: dict[str, Any], bundle: StrPath, ready: Ready, line: Channel, given: Given) -> None:
        self.config = config
        self.bundle = bundle
        self.ready = ready
        self.line = line
        self.given = given
        self.state: dict[str, Any] = {}
        self.root = -1
        self.path = ""
        self.program: execute.Prepared | None = None

    @property
    def linux(self) -> dict[str, Any]:
        """config.json's `linux`."""
        found: dict[str, Any] = self.config.get("linux", {})
        return found

    def has_new(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this type."""
        return any(one["type"] == kind and not one.get("path") for one in self.linux.get("namespaces", ()))

    def in_user_namespace(self) -> bool:
        """Whether it is in a user namespace that is not its maker's: a new one, or one joined by its path."""
        return any(one["type"] == "user" for one in self.linux.get("namespaces", ()))


class Given(Record):
    """The descriptors and switches that the maker hands on."""

    trees: dict[int, int]
    fifo: int  # -1: go on without being started
    stdio: list[int]
    console: socket.socket | None  # connected to --console-socket
    listener: socket.socket | None = None  # the line for a seccomp listener's descriptor
    preserved: int = 0  # how many descriptors from 3 on the program gets
    environment: Mapping[str, str] = {}  # what goes with them (LISTEN_FDS)
    no_pivot: bool = False
    keyring: bool = True  # a session keyring of the container's own
    rootless: bool = False  # the maker is an ordinary user
    stepped: bool = False  # stop after each step (stepping.py)
    stack: Callable[[str], None] | None = None  # shows the root file system on its folder, in here
    held: bool = False  # made by whoever lives as long: wait for its word instead of the FIFO's, and end with it


def waiting(one: Newborn) -> None:
    """Wait until the maker has written the mappings; then be root in here."""
    process.set_title("labkit:waiting")
    process.die_with_parent()
    if not (one.given.rootless and one.has_new("user")):
        process.hide_memory()  # it makes this process's files in /proc root's, and a user could write no mapping
    go = one.line.receive()
    if go is None:  # the maker died: nothing to be born into
        os._exit(1)
    one.state = go["state"]
    os.setsid()
    if one.in_user_namespace():
        # Made or joined, in there this process is nobody, and nobody may make a file (EOVERFLOW).  Not before: the
        # cgroup and the other namespaces are entered with the machine's numbers.
        try:
            os.setgroups([])
        except PermissionError:  # denied for good: an ordinary user's (user_namespaces(7), setgroups)
            pass
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        process.hide_memory()  # a change of user turns it on again (prctl(2))
        process.die_with_parent()  # and this off
        if one.has_new("ipc"):
            namespaces.leave(["ipc"])
    if one.has_new("cgroup"):
        # Only now: made by clone3 it would have the maker's cgroup as its root.
        namespaces.leave(["cgroup"])


def networked(one: Newborn) -> None:
    """The loopback of a new network namespace is up."""
    if one.has_new("network"):
        loopback.up()


def labelled(one: Newborn) -> None:
    """What is written below the machine's own /proc, while it can be reached."""
    settle.early(one.ready)


def mounted(one: Newborn) -> None:
    """The root and all mounts."""
    process.set_title("labkit:rooting")
    one.root = root.build(one.config, one.bundle, one.given.trees, one.given.stack)


def hooked(one: Newborn) -> None:
    """The hooks that see the mounts and the machine: the maker runs its two kinds, and this process its own."""
    if hooks.wanted(one.config, hooks.OF_THE_MAKER):
        one.line.send({"stage": "mounted"})
        if one.line.receive() is None:
            os._exit(1)
    hooks.run(one.config, "createContainer", one.state)


def pivoted(one: Newborn) -> None:
    """The root is /."""
    import_no_more()
    root.enter(one.config, one.root, no_pivot=one.given.no_pivot)


def init_wanted(config: dict[str, Any]) -> bool:
    """Whether an init of this runtime's is to be process 1 (labkit.runtime.become.init)."""
    return bool(config.get("annotations", {}).get(INIT) == "true")


def import_no_more() -> None:
    """From here on, Python would look for a module in the container's files: who made the image could run code.

    The powers are still the maker's.  All that is needed has been imported (labkit.runtime.become.ready).
    """
    sys.path.clear()
    sys.meta_path.clear()  # without a finder nothing is looked for, wherever (importlib, "The meta path")


def ready_for_a_terminal() -> None:
    """For the maker: import what `attached` needs, which can import nothing any more."""
    import socket
    import struct
    import termios

    del socket, struct, termios


def attached(one: Newborn) -> None:
    """Standard streams, or a terminal of the container's own."""
    stdio = one.given.stdio
    if one.config["process"].get("terminal"):
        import termios

        terminal = _terminal(one)
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        stdio = [terminal] * 3
    for number, fd in enumerate(stdio):
        os.dup2(fd, number, inheritable=True)


def _terminal(one: Newborn) -> int:
    """Open a pty in here, send its master to whoever asked for it, and show the other side as /dev/console."""
    import socket
    import struct
    import termios

    master, terminal = devices.terminal()
    if size := one.config["process"].get("consoleSize"):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size["height"], size["width"], 0, 0))
    user = one.config["process"].get("user", {})
    os.fchown(terminal, user.get("uid", 0), -1)
    if one.root >= 0:
        devices.console(terminal, os.open("/", C.O_PATH | os.O_CLOEXEC))
    assert one.given.console is not None
    socket.send_fds(one.given.console, [b"/dev/ptmx"], [master])
    one.given.console.close()
    os.close(master)
    return terminal


def masked(one: Newborn) -> None:
    """Names, kernel settings, what is read-only and what is hidden."""
    for field, name in (("hostname", "sethostname"), ("domainname", "setdomainname")):
        if text := one.config.get(field, ""):
            call(name, text, len(text.encode()))
    try:
        # While the root can be written, and with the maker's umask, as runc does it.
        drop.make_folder(one.config["process"]["cwd"])
    except OSError:
        pass  # `dropped`, which goes there, says what is wrong with it
    root.finish(one.config)


def limited(one: Newborn) -> None:
    """Resource limits, scheduling, personality; a keyring of the container's own."""
    settle.settle(one.ready)
    if one.given.keyring:
        settle.own_keyring(f"_ses.{one.state['id']}")


def dropped(one: Newborn) -> None:
    """The filter, if it needs powers; then user, groups, capabilities and folder; and the program is found.

    Before, every descriptor that leads out of the container is closed: neither the folder nor the program
    may be named through one (CVE-2024-21626).
    """
    if init_wanted(one.config):
        from labkit.runtime.become import init  # there already: see maker

        init.split(bool(one.config["process"].get("terminal")), one.ready.highest, one.line.close)
    listener = [one.given.listener.fileno()] if one.given.listener else []
    fifo = [one.given.fifo] if one.given.fifo >= 0 else []
    execute.close_all(one.given.preserved, spared=[one.line.inward, one.line.outward, *fifo, *listener])
    _tell_listener(one, filters.before_dropping(one.ready))
    drop.drop(one.ready)
    one.path = execute.program(one.ready)


def created(one: Newborn) -> None:
    """All is made: say so, and wait to be started."""
    if not one.given.held:
        # From here on the maker's end is no reason to die: `create` returns.
        call("prctl", C.PR_SET_PDEATHSIG, 0, 0, 0, 0)
    one.line.send({"stage": "ready"})
    if one.given.held and one.line.receive() is None:
        os._exit(1)
    if one.given.fifo >= 0:
        process.set_title("labkit-created")
        poll = select.poll()
        poll.register(one.given.fifo, select.POLLIN)
        poll.poll()  # until `start` writes, nothing happens
        os.read(one.given.fifo, 1)
    hooks.run(one.config, "startContainer", one.state | {"status": "created"})


def filtered(one: Newborn) -> None:
    """The filter, if nobody may gain privileges any more: as late as can be, so that it meets the program alone."""
    one.program = execute.prepare(one.ready, one.given.environment)
    _tell_listener(one, filters.at_last(one.ready))


def executed(one: Newborn) -> NoReturn:
    """The program."""
    execute.execute(one.ready, one.path, one.program)


def _tell_listener(one: Newborn, fd: int | None) -> None:
    """Hand the listener's descriptor to the maker, which knows the socket of whoever answers."""
    if fd is None:
        return
    assert one.given.listener is not None and one.ready.filter is not None
    one.line.send({"stage": "listener"})
    filters.give(one.ready.filter, one.given.listener, fd)


STEPS: tuple[Step, ...] = (waiting, networked, labelled, mounted, hooked, pivoted, attached, masked, limited, dropped,
                           created, filtered, executed)  # fmt: skip


# Another process in a container that is there already: it has its root, and its maker has joined it.
LATER: tuple[Step, ...] = (attached, limited, dropped, created, filtered, executed)


def main(one: Newborn, steps: tuple[Step, ...] = STEPS) -> NoReturn:
    """Walk the steps; never return."""
    step = steps[0]
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        made: list[syscalls.Call] = []
        if one.given.stepped:
            syscalls.keep(made)
        for step in steps:
            step(one)
            if one.given.stepped:
                _stop(one, step.__name__, made)
    except BaseException as error:
        report(one.line, error, step.__name__)
    finally:
        os._exit(1)


def _stop(one: Newborn, step: str, made: list[syscalls.Call]) -> None:
    one.line.send({"stage": "step", "step": step, "calls": [str(call) for call in made]})
    made.clear()
    one.line.receive()


def report(line: Channel, error: BaseException, step: str) -> None:
    """Tell the maker what went wrong, and in which step."""
    if not isinstance(error, LabError):
        found = " ".join(" ".join(getattr(error, "__notes__", ())).split())
        error = LabError(f"the container could not be made: {error}", why=found or type(error).__name__, status=1)
    why = f"{error.why}\n  step: {step}" if error.why else f"in the step {step!r}"
    words = {"what": error.what, "why": why, "next": error.next, "status": error.status}
    line.send({"error": words, "kind": type(error).__name__, "step": step})
