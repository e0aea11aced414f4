"""Floor 2: one call of one CNI plugin: variables and JSON in, JSON out, its error in our words.

Owns: the protocol of a single execution, and what each error code means.

Read: containernetworking/cni, SPEC.md, section 2 (the protocol) and section 5 (results and errors).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from labkit.errors import LabError, NotFound

PATIENCE = 60  # seconds; a plugin that waits for a DHCP server needs some

# SPEC.md, section 5, "Error": what the code says, and what a person can do.
CODES = {
    1: ("it does not speak the configuration's cniVersion", "another cniVersion: labkit cni versions"),
    2: ("a field of the configuration is not supported", "remove the field from the configuration"),
    3: ("it does not know this container", "labkit reset, then begin anew"),
    4: ("a variable of its environment is wrong", ""),
    5: ("reading or writing failed", ""),
    6: ("it could not decode what it was given", ""),
    7: ("the network's configuration is invalid", "read what it says, and mend the configuration"),
    11: ("it could not do it just now", "try again"),
}


class Call(NamedTuple):
    """What all plugins of one attachment are told."""

    container: str
    netns: str  # a path; "" when the namespace is gone (DEL)
    ifname: str
    path: str  # folders of plugins, joined by colons

    def environment(self, command: str) -> dict[str, str]:
        """The variables of the protocol, on top of this process's own."""
        return {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_PATH": self.path,
        }


def execute(program: Path, command: str, call: Call, configuration: dict[str, Any]) -> dict[str, Any]:
    """Run one plugin; its result, {} where the command has none.

    Raises LabError with the plugin's own words when it refuses, NotFound when it cannot be run.
    """
    of = f" of network {configuration['name']}" if "name" in configuration else ""
    what = f"the CNI plugin {program.name} failed at {command}{of}"
    try:
        done = subprocess.run(
            [str(program)],
            input=json.dumps(configuration).encode(),
            env=call.environment(command),
            capture_output=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(what, why=f"it did not end in {PATIENCE} seconds") from error
    except OSError as error:
        raise NotFound(f"cannot run the CNI plugin {program}", why=str(error)) from error
    try:
        said = json.loads(done.stdout) if done.stdout.strip() else {}
    except ValueError:
        said = None
    if done.returncode == 0 and isinstance(said, dict):
        return said
    raise _refusal(what, said, done)


def _refusal(what: str, said: object, done: subprocess.CompletedProcess[bytes]) -> LabError:
    words = done.stderr.decode(errors="replace").strip()
    if not isinstance(said, dict) or "code" not in said:
        talk = words or done.stdout.decode(errors="replace").strip()[:400] or "nothing"
        return LabError(what, why=f"it ended with status {done.returncode} and said, not in JSON: {talk}")
    meaning, next = CODES.get(said["code"], ("", ""))
    own = ": ".join(str(said[key]) for key in ("msg", "details") if said.get(key))
    return LabError(what, why=f"{own} (code {said['code']}{', ' if meaning else ''}{meaning})", next=next)
