"""Floor 3: the container's side of its own birth, in the order the kernel is asked.

Owns: everything between clone3 and execve, in one single-threaded process that walks
through named stages (`ps` shows the name): waiting, rooting, entering, dropping, and
then either becoming the command or staying as the init that reaps for it.

It speaks with its maker over one channel (labkit.runtime.channel): it is told to go on,
and answers with an error in our words, or with silence when execve has succeeded.

Everything is imported before the pivot: after it, the library's files are out of reach.

Read: the OCI runtime specification, "Lifecycle"; pid_namespaces(7) on process 1.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios
from pathlib import Path
from typing import Any, NoReturn

from labkit.errors import LabError, NotFound, Refused
from labkit.kernel import capabilities, constants, mounts, namespaces, process
from labkit.kernel.syscalls import call
from labkit.runtime import rootfs, user
from labkit.runtime.channel import Channel
from labkit.storage.overlay import Root


def main(channel: Channel, config: dict[str, Any], root: Root, target: Path, stdio: list[int], init: bool) -> NoReturn:
    """Live the stages; never return."""
    try:
        process.set_title("labkit:waiting")
        process.die_with_parent()
        process.hide_memory()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        go = channel.receive()
        if go is None:  # the maker died: nothing to be born into
            os._exit(1)
        process.set_title("labkit:rooting")
        # Only now: made by clone3 the cgroup namespace would have the maker's cgroup as its root.
        if "cgroup" in kinds(config):
            namespaces.leave(["cgroup"])
        if go["endpoint"]:
            from labkit.network import inside
            from labkit.network.endpoint import Endpoint

            inside.configure(Endpoint.from_json(go["endpoint"]))
        elif "network" in kinds(config):
            from labkit.network import inside

            inside.loopback_up()
        rootfs.build(config, root, target)
        call("sethostname", config["hostname"], len(config["hostname"].encode()))
        process.set_title("labkit:entering")
        mounts.pivot(target)
        rootfs.write_sysctls(config["linux"]["sysctl"])
        os.setsid()
        take_stdio(channel, config, stdio)
        rootfs.seal(config["linux"]["maskedPaths"], config["linux"]["readonlyPaths"])
        if init:
            become_init(channel, config)
        execute(channel, config)
    except BaseException as error:
        report(channel, error)
    finally:
        os._exit(1)


def kinds(config: dict[str, Any]) -> list[str]:
    """The namespaces to be made, by the specification's names."""
    return [entry["type"] for entry in config["linux"]["namespaces"]]


def take_stdio(channel: Channel, config: dict[str, Any], stdio: list[int]) -> None:
    """Put the given descriptors, or a new terminal of the container's own devpts, at 0, 1 and 2."""
    if config["process"]["terminal"]:
        channel.send({"stage": "console"})
        answer = channel.receive() or {}
        fd = os.open(f"/dev/pts/{answer['pts']}", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
        stdio = [fd, fd, fd]
    for number, fd in enumerate(stdio):
        os.dup2(fd, number, inheritable=True)
    call("close_range", 3, 0xFFFFFFFF, constants.CLOSE_RANGE_CLOEXEC)


def become_init(channel: Channel, config: dict[str, Any]) -> None:
    """Fork the command; stay behind as process 1, which reaps, forwards signals and reports the end.

    Returns in the command's process only.
    """
    worker = os.fork()
    if worker == 0:
        os.setpgid(0, 0)
        if config["process"]["terminal"]:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            os.tcsetpgrp(0, os.getpid())
        return
    process.set_title("labkit-init")
    channel.close()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    # Of root's powers an init needs to signal every user's processes, and nothing else.
    capabilities.limit(["CAP_KILL"])
    capabilities.set_sets(["CAP_KILL"])
    watched = signal.valid_signals() - {signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP}
    while True:
        arrived = signal.sigwait(watched)
        if arrived != signal.SIGCHLD:
            forward(worker, arrived)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == worker:
                code = os.waitstatus_to_exitcode(status)
                # The end of process 1 is the end of everything in its pid namespace.
                os._exit(code if code >= 0 else 128 - code)


def forward(worker: int, number: int) -> None:
    """Pass a signal on to the command's process group; it may be gone already."""
    try:
        os.kill(-worker, number)
    except ProcessLookupError:
        pass


def execute(channel: Channel, config: dict[str, Any]) -> NoReturn:
    """Drop what is not granted, become the user, and turn into the command.

    Raises LabError with Docker's statuses: 127 there is no such program, 126 it cannot be executed.
    """
    wanted = config["process"]
    who = user.look_up(wanted["user"]["username"])
    environment = dict(item.partition("=")[::2] for item in wanted["env"])
    environment.setdefault("HOME", who.home)
    work = Path(wanted["cwd"])
    if not work.is_dir():
        work.mkdir(parents=True)
    os.chdir(work)
    granted = wanted["capabilities"]["permitted"]
    capabilities.limit(granted)
    if who.uid != 0:
        own_stdio(who.uid)
    user.become(who)
    # A change of user has emptied the sets unless root stays root (capabilities(7)).
    capabilities.set_sets(granted if who.uid == 0 else [])
    if wanted["noNewPrivileges"]:
        process.forbid_new_privileges()
    path = find_program(wanted["args"][0], environment.get("PATH", os.defpath))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; execve would pass that on
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        os.execve(path, wanted["args"], environment)
    except OSError as error:
        why = f"{error.strerror} (errno {error.errno})"
        if isinstance(error, FileNotFoundError):
            why = "the program is there, but the interpreter or the loader that it names is not"
        elif error.errno == 8:
            why = "it is neither a program for this processor nor a script with a #! line"
        raise Refused(f"cannot execute {path} in the container", why=why, status=126) from error


def own_stdio(uid: int) -> None:
    """Give the standard streams to the user, so that /dev/stdout can be opened again by its name."""
    for number in (0, 1, 2):
        try:
            if os.fstat(number).st_uid == 0 and not os.path.samestat(os.fstat(number), os.stat("/dev/null")):
                os.fchown(number, uid, -1)
        except OSError:
            continue  # a read-only or foreign file: writing to the open stream still works


def find_program(name: str, search: str) -> str:
    """Where execvp(3) would find `name`. Raises NotFound (127) or Refused (126)."""
    candidates = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in search.split(":")]
    found = [path for path in candidates if os.path.exists(path)]
    for path in found:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    if found:
        raise Refused(f"cannot execute {found[0]} in the container", why="it is not an executable file", status=126)
    where = "" if "/" in name else f"none of the folders of PATH has it: {search}"
    raise NotFound(f"there is no program {name!r} in the container", why=where, status=127)


def report(channel: Channel, error: BaseException) -> None:
    """Tell the maker what went wrong; a bare OSError keeps its call and the stage it happened in."""
    if not isinstance(error, LabError):
        error = LabError(f"the container could not be made: {error}", why=type(error).__name__)
    words = {"what": error.what, "why": error.why, "next": error.next, "status": error.status}
    channel.send({"error": words, "kind": type(error).__name__})
