"""Floor 3: config.json: everything that a container is, in one document.

Owns: making the document from an image's configuration and the options of `labkit run`.
It is an OCI runtime configuration: other runtimes read it too.

Read: the OCI runtime specification 1.2.1, config and config-linux; the image
specification, "conversion to OCI runtime configuration".
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from labkit.errors import BadInput
from labkit.kernel import capabilities, namespaces
from labkit.runtime import defaults, flags
from labkit.runtime.life.born import INIT
from labkit.runtime.user import User
from labkit.storage.volumes import Volume

SETS = ("bounding", "effective", "permitted")
Config = dict[str, Any]  # the JSON document itself: its schema is the specification's


class Options(NamedTuple):
    """What `labkit run` was asked for; texts as written on the command line."""

    command: list[str]
    hostname: str
    limits: flags.Given = MappingProxyType({})  # see labkit.runtime.flags
    env: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    network: str = "bridge"
    network_path: str = ""  # the network namespace of another container, to be shared
    user: str | None = None
    workdir: str | None = None
    entrypoint: str | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = defaults.NO_NEW_PRIVILEGES
    tty: bool = False


def build(options: Options, image: Mapping[str, Any], *, cgroups_path: str, init: bool = True) -> Config:
    """The configuration for `options` on an image whose `config` object is `image`; its user is root: see `become`.

    init -- whether process 1 is to be an init (labkit.runtime.become.init)
    Raises BadInput for a limit, a capability or a command that cannot be understood.
    """
    kinds = [kind for kind in defaults.NAMESPACES if not (kind == "network" and options.network == "host")]
    keep = capability_set(options.cap_add, options.cap_drop)
    mounts = copy.deepcopy(defaults.MOUNTS)
    if "network" not in kinds and namespaces.nested():
        # A sysfs shows a network: only who owns the network's namespace may mount one (sysfs, Linux 3.19).
        bound = {"type": "bind", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "rro"]}
        mounts = [one | bound if one["type"] == "sysfs" else one for one in mounts if one["type"] != "cgroup2"]
    mounts += [
        {
            "destination": volume.target,
            "type": "bind",
            "source": str(volume.source),
            "options": ["rbind", "nodev", *volume.options],
        }
        for volume in options.volumes
    ]
    return {
        "ociVersion": "1.2.1",
        "process": {
            "terminal": options.tty,
            "user": {"uid": 0, "gid": 0},
            "args": arguments(options, image),
            "env": environment(options, image),
            "cwd": options.workdir or image.get("WorkingDir") or "/",
            "capabilities": dict.fromkeys(SETS, keep),
            "noNewPrivileges": options.no_new_privileges,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": options.hostname,
        "mounts": mounts,
        "annotations": {INIT: "true"} if init else {},
        "linux": {
            "namespaces": [
                {"type": kind, "path": options.network_path}
                if kind == "network" and options.network_path
                else {"type": kind}
                for kind in kinds
            ],
            "cgroupsPath": cgroups_path,
            "resources": {**flags.resources(options.limits), "devices": copy.deepcopy(defaults.DEVICE_RULES)},
            "sysctl": _settings() if "network" in kinds and not options.network_path else {},
            "maskedPaths": defaults.MASKED_PATHS,
            "readonlyPaths": defaults.READONLY_PATHS,
        },
    }


def _settings() -> dict[str, str]:
    return dict(defaults.NESTED_SYSCTLS if namespaces.nested() else defaults.NETWORK_SYSCTLS)


def become(config: Config, who: User) -> None:
    """Write the user into the document; who is not root has no powers but can get them back (set-user-ID programs)."""
    process = config["process"]
    process["user"] = who.to_json()
    if who.uid != 0:
        process["capabilities"] = {"bounding": process["capabilities"]["bounding"]}


def arguments(options: Options, image: Mapping[str, Any]) -> list[str]:
    """ENTRYPOINT and CMD: a command given replaces CMD, an entry point given replaces both."""
    if options.entrypoint is not None:
        found = [options.entrypoint, *options.command] if options.entrypoint else options.command
    else:
        found = [*(image.get("Entrypoint") or []), *(options.command or image.get("Cmd") or [])]
    if not found:
        raise BadInput(
            "there is no command to run",
            why="the image has neither ENTRYPOINT nor CMD, and none was given",
            next="labkit run IMAGE COMMAND",
        )
    return found


def environment(options: Options, image: Mapping[str, Any]) -> list[str]:
    """PATH and HOSTNAME, then the image's variables, then --env; a later one wins."""
    terminal = ["TERM=xterm"] if options.tty else []
    host = f"HOSTNAME={options.hostname}"
    return variables([defaults.PATH, host, *terminal, *(image.get("Env") or []), *options.env])


def variables(given: Iterable[str]) -> list[str]:
    """NAME=value each, a later one wins; NAME alone passes this process's own value on, or takes the name away."""
    merged: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if equals:
            merged[name] = value
        elif name in os.environ:
            merged[name] = os.environ[name]
        else:
            merged.pop(name, None)
    return [f"{name}={value}" for name, value in merged.items()]


def capability_set(add: tuple[str, ...], drop: tuple[str, ...]) -> list[str]:
    """Docker's defaults without `drop`, then with `add`; ALL is every one; CAP_ may be left out."""

    def expand(names: tuple[str, ...]) -> set[str]:
        found: set[str] = set()
        for name in names:
            full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
            if full == "CAP_ALL":
                found |= set(capabilities.NUMBERS)
            elif full in capabilities.NUMBERS:
                found.add(full)
            else:
                raise BadInput(f"there is no capability {name!r}", next="man 7 capabilities lists them")
        return found

    keep = (set(defaults.CAPABILITIES) - expand(drop)) | expand(add)
    return [name for name in capabilities.NUMBERS if name in keep]
