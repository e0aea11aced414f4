"""Floor 2: one call of `labkit-cni`, understood: the command, its variables, its configuration.

Owns: what a call must hold, and the refusals with the codes of the specification.

Read: containernetworking/cni, SPEC.md, section 2 (variables) and 5 (codes); net/core/dev.c, dev_valid_name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from labkit.network.cni_config import NAME

SPOKEN = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
COMMANDS_SINCE = {"ADD": 0, "DEL": 0, "CHECK": 2, "GC": 4, "STATUS": 4}  # index into SPOKEN
# SPEC.md, section 5: codes below 100 are the specification's.
VERSION_UNKNOWN, FIELD_UNSUPPORTED, UNKNOWN_CONTAINER, BAD_VARIABLE, UNDECODABLE, BAD_CONFIGURATION = 1, 2, 3, 4, 6, 7
NOT_AVAILABLE, OURS = 50, 100
# An interface's name: 15 bytes, and what the kernel does not take (dev_valid_name).
IFNAME = re.compile(r"(?!\.{1,2}$)[^/:\s]{1,15}")


class Refusal(Exception):
    """What the plugin answers instead of a result."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code, self.msg, self.details = code, msg, details


class Request(NamedTuple):
    """One call of the plugin, understood."""

    command: str
    container: str
    netns: str  # a path; "" where the namespace is gone
    ifname: str
    version: str
    configuration: dict[str, Any]

    @property
    def previous(self) -> dict[str, Any]:
        """The result of the plugins before, or for CHECK and DEL of ADD."""
        found = self.configuration.get("prevResult") or {}
        return dict(found) if isinstance(found, dict) else {}


# Which variables a command needs, and what each must look like.
NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}
FORMS = {"CNI_CONTAINERID": NAME, "CNI_IFNAME": IFNAME, "CNI_NETNS": re.compile(r"/.*")}


def understand(environment: Mapping[str, str], text: bytes) -> Request:
    """The call, from its variables and what came on standard input. Raises Refusal."""
    command = environment.get("CNI_COMMAND", "")
    if command not in NEEDS:
        raise Refusal(BAD_VARIABLE, f"CNI_COMMAND is {command!r}", f"one of {', '.join(NEEDS)}")
    for variable in NEEDS[command]:
        value = environment.get(variable, "")
        if not FORMS[variable].fullmatch(value):
            raise Refusal(BAD_VARIABLE, f"{variable} is {value!r}", f"{command} needs a good one")
    try:
        configuration = json.loads(text)
    except ValueError as error:
        raise Refusal(UNDECODABLE, "standard input is not JSON", str(error)) from error
    if not isinstance(configuration, dict):
        raise Refusal(UNDECODABLE, "standard input is no JSON object")
    version = configuration.get("cniVersion", "0.1.0")
    if command != "VERSION":
        if version not in SPOKEN:
            raise Refusal(VERSION_UNKNOWN, f"cniVersion {version!r} is not spoken here", f"one of {', '.join(SPOKEN)}")
        if SPOKEN.index(version) < COMMANDS_SINCE[command]:
            since = SPOKEN[COMMANDS_SINCE[command]]
            raise Refusal(VERSION_UNKNOWN, f"{command} came with cniVersion {since}", f"the configuration's: {version}")
        name = configuration.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise Refusal(BAD_CONFIGURATION, f"the network's name is {name!r}")
        if not isinstance(configuration.get("network", ""), str):
            raise Refusal(BAD_CONFIGURATION, f"network is {configuration['network']!r}, which is no name")
    return Request(
        command,
        environment.get("CNI_CONTAINERID", ""),
        environment.get("CNI_NETNS", ""),
        environment.get("CNI_IFNAME", ""),
        str(version),
        configuration,
    )
