"""Floor 3: exec: one more process in a container that runs.

Owns: the order: the cgroup first, so that nothing is ever counted outside; all namespaces in one call, so that
no process of the container sees this one half inside; a sister made in there, since a process never changes its
own pid namespace; and only then its user, its capabilities and, last, the filter (CVE-2016-9962, CVE-2019-5736).

Read: setns(2) on a pidfd (Linux 5.8), pid_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import sys

from labkit.errors import LabError, Refused
from labkit.kernel import cgroups, process, syscalls
from labkit.kernel import constants as C
from labkit.kernel.cgroups import tree
from labkit.lean import TYPE_CHECKING, contents, signal
from labkit.runtime import channel
from labkit.runtime.become import settle
from labkit.runtime.become.ready import ready as understand
from labkit.runtime.document import read
from labkit.runtime.life import born, maker, store
from labkit.runtime.life.store import Store

if TYPE_CHECKING:
    from typing import Any

    from labkit.runtime.life.store import State


def execute(place: Store, state: State, wanted: dict[str, Any], options: maker.Options, *, paused: bool = False) -> int:
    """Start the process in the container; its pid, as this process's child.

    wanted -- config.json's `process`, for this one
    paused -- wait in a container that stands still, with it
    Raises Refused when the container does not run, BadInput.
    """
    if state["status"] not in ("running", "created", *(["paused"] if paused else [])):
        still = state["status"] == "paused"
        raise Refused(f"container {state['id']} does not run", why=f"it is {state['status']}", status=1,
                      next=f"labkit-runtime {'resume' if still else 'state'} {state['id']}")  # fmt: skip
    read.check_process(wanted)
    config = place.config(state["id"])
    config["process"] = wanted
    for name in ("hooks", "annotations"):  # they are the container's, not each process's
        config.pop(name, None)
    prepared = understand(config, cache=place.filters)
    maker.tell(prepared, options)
    console = options.console
    if wanted.get("terminal"):
        born.ready_for_a_terminal()
        console = console or maker.connect(options.console_socket)
    heard, told = maker.listening(prepared)
    mine, theirs = channel.pair()
    given = born.Given({}, -1, list(options.stdio), console, told, *options.handed, keyring=state.get("keyring", True))
    newborn = born.Newborn(config, "/", prepared, theirs, given)
    newborn.state = store.public(state)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        try:
            pid = _inside(state, config, newborn, mine)
        finally:
            theirs.close()
        try:
            maker.hear(mine, pid, prepared, newborn.state, heard, to_the_end=True)
        except BaseException:
            # It may be on its way to the program still, and whoever asked for it is told that it does not run.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    finally:
        mine.close()
    return pid


def _inside(state: State, config: dict[str, Any], newborn: born.Newborn, mine: channel.Channel) -> int:
    answer, said = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    middle = os.fork()
    if middle == 0:
        try:
            process.hide_memory()
            settle.from_outside(newborn.ready, "self")  # before the namespaces: a user namespace would forbid it
            settle.pin(newborn.ready, "initial")
            if state["cgroup"]:
                _enter_cgroup(state)
            settle.early(newborn.ready)
            flags = 0
            for one in config.get("linux", {}).get("namespaces", ()):
                flags |= maker.OCI[one["type"]].flag
            pidfd = syscalls.call("pidfd_open", state["pid"], 0)
            inside = os.open(f"/proc/{state['pid']}/root", C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if not process.is_alive(state["pid"], state["start"]):
                raise Refused(f"container {state['id']} has ended meanwhile", status=1)
            born.import_no_more()
            if flags:
                syscalls.call("setns", pidfd, flags)
            os.close(pidfd)
            if flags & C.CLONE_NEWUSER:
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                process.hide_memory()
            if not flags & C.CLONE_NEWNS:
                # No mount namespace brings the container's root along: without this, / would be the machine's.
                os.fchdir(inside)
                os.chroot(".")
            os.close(inside)
            pid = syscalls.clone3(C.CLONE_PARENT)
            if pid == 0:
                os.close(said)  # or the maker would wait for its end, and it for the maker
                mine.close()
                process.die_with_parent()  # until it is made (born.created), as at a birth
                os.setsid()
                settle.pin(newborn.ready, "final")
                born.main(newborn, born.LATER)
            os.write(said, str(pid).encode())
        except BaseException as error:
            os.write(said, f"error {error}".encode())
        finally:
            os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(said)
    with os.fdopen(answer) as pipe:
        text = pipe.read()
    os.waitpid(middle, 0)
    if not text.isdigit():
        raise Refused(f"cannot enter container {state['id']}", why=text.removeprefix("error "), status=1)
    return int(text)


def _enter_cgroup(state: State) -> None:
    """Go into the container's cgroup, or where its first process is in it. Raises LabError.

    A container that divides its cgroup (systemd, Docker in Docker) has moved its processes out of the top of it:
    with controllers handed down, nobody may be there (cgroup-v2.rst, "No Internal Process Constraint": EBUSY).
    """
    try:
        cgroups.attach(state["cgroup"], os.getpid())
    except LabError as error:
        if getattr(error.__cause__, "errno", 0) != errno.EBUSY:
            raise
        lines = contents(f"/proc/{state['pid']}/cgroup").decode().splitlines()
        group = tree.top() + next((line[3:] for line in lines if line.startswith("0::")), "")
        if not group.startswith(f"{state['cgroup']}/"):
            raise  # it has gone elsewhere: there, this process would not be counted as the container's
        cgroups.attach(group, os.getpid())
