"""Floor 3: `labkit exec`: one more process in a container that runs already.

Owns: joining the cgroup first and the namespaces second, and forking once more, because
a process itself never changes its pid namespace.

Read: setns(2), pid_namespaces(7), nsenter(1).
"""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from labkit import errors
from labkit.errors import LabError, Refused
from labkit.kernel import cgroups, mounts, namespaces, process
from labkit.runtime import channel, child, state
from labkit.runtime.console import Console
from labkit.runtime.container import OCI_KINDS


def run(found: Mapping[str, Any], command: list[str], *, env: list[str], user: str, workdir: str, tty: bool) -> int:
    """Run `command` inside the container of that state; return its exit status.

    Raises Refused when the container does not run, and the LabErrors of execve.
    """
    if found["status"] != "running":
        raise Refused(f"container {found['name']} does not run", why=f"it is {found['status']}", next="labkit ps --all")
    config = copy.deepcopy(json.loads((state.folder(found["id"]) / "config.json").read_text()))
    wanted = config["process"]
    wanted.update(args=command, env=wanted["env"] + env, cwd=workdir or wanted["cwd"], terminal=tty)
    wanted["user"]["username"] = user or wanted["user"]["username"]
    mine, theirs = channel.pair()
    pid = os.fork()
    if pid == 0:
        mine.close()
        _join(theirs, config, found)
    theirs.close()
    terminal = Console()
    while (message := mine.receive()) is not None:
        if message.get("stage") == "console":
            mine.send({"pts": terminal.open(found["pid"])})
        elif "error" in message:
            os.waitpid(pid, 0)
            words = message["error"]
            kind: type[LabError] = getattr(errors, message["kind"])
            raise kind(words["what"], why=words["why"], next=words["next"], status=words["status"])

    def pass_on(number: int, frame: FrameType | None) -> None:
        os.kill(pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, pass_on)
    if tty:
        terminal.copy()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _join(line: channel.Channel, config: dict[str, Any], found: Mapping[str, Any]) -> NoReturn:
    """The middle process: it stands in the cgroup and the namespaces, and waits for the one inside."""
    try:
        process.set_title("labkit:joining")
        # Unreadable before the container's processes can see it (CVE-2016-9962).
        process.hide_memory()
        cgroups.attach(_mount_point() / found["cgroup"].lstrip("/"), os.getpid())
        kinds = [OCI_KINDS[entry["type"]] for entry in config["linux"]["namespaces"]]
        namespaces.join(found["pid"], kinds)
        inner = os.fork()
        if inner == 0:
            process.die_with_parent()
            os.setsid()
            child.take_stdio(line, config, [0, 1, 2])
            child.execute(line, config)
        line.close()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda number, frame: os.kill(inner, number))
        code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    except BaseException as error:
        child.report(line, error)
        os._exit(1)


def _mount_point() -> Path:
    where = mounts.find("cgroup2")
    assert where is not None, "a running container has a cgroup"
    return where
