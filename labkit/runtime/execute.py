"""Floor 3: `labkit exec`: one more process in a container of `labkit run`.

Owns: what an engine adds to the runtime's exec: the command and its user in numbers, looked up in the container's
own lists.  How the process gets into the namespaces stands in labkit.runtime.life.join.

Read: docker-exec(1); setns(2).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from labkit.errors import NotFound, Refused
from labkit.kernel import constants as C
from labkit.runtime import container, spec, state
from labkit.runtime.life import verbs
from labkit.runtime.life.maker import Options
from labkit.runtime.user import look_up


def run(found: Mapping[str, Any], command: list[str], *, env: list[str], user: str, workdir: str, tty: bool) -> int:
    """Run `command` inside the container of that state; return its exit status.

    user -- "" is the container's own.  Raises Refused when the container does not run, and the LabErrors of execve.
    """
    if found["status"] != "running":
        raise Refused(f"container {found['name']} does not run", why=f"it is {found['status']}", next="labkit ps --all")
    folder = state.folder(found["id"])
    config = json.loads((folder / "config.json").read_text())
    wanted = config["process"]
    wanted.update(args=command, env=spec.variables(wanted["env"] + env), cwd=workdir or wanted["cwd"], terminal=tty)
    if user:
        # Whoever the container's own user is, the powers that another may have are those of its bounding set.
        wanted["capabilities"] = dict.fromkeys(spec.SETS, wanted["capabilities"]["bounding"])
        root = _root(found)
        try:
            spec.become(config, look_up(user, root))
        finally:
            os.close(root)
    return verbs.execute(container.place(), found["id"], wanted, Options(bundle=folder))


def _root(found: Mapping[str, Any]) -> int:
    try:
        return os.open(f"/proc/{found['pid']}/root", C.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"container {found['name']} has ended meanwhile", next="labkit ps --all") from None
