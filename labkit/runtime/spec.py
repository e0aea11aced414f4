"""Floor 3: config.json: everything that a container is, in one document.

Owns: making the document from an image's configuration and the options of `labkit run`.
It is an OCI runtime configuration: other runtimes read it too.

Read: the OCI runtime specification 1.2.1, config and config-linux; the image
specification, "conversion to OCI runtime configuration".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from labkit.errors import BadInput
from labkit.kernel import capabilities
from labkit.runtime import defaults, units
from labkit.storage.volumes import Volume

Config = dict[str, Any]  # the JSON document itself: its schema is the specification's


class Options(NamedTuple):
    """What `labkit run` was asked for; texts as written on the command line."""

    command: list[str]
    hostname: str
    memory: str | None = None
    memory_swap: str | None = None
    cpus: str | None = None
    pids_limit: str | None = None
    env: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    network: str = "bridge"
    user: str | None = None
    workdir: str | None = None
    entrypoint: str | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = defaults.NO_NEW_PRIVILEGES
    tty: bool = False


def build(options: Options, image: Mapping[str, Any], *, cgroups_path: str) -> Config:
    """The configuration for `options` on an image whose `config` object is `image`.

    Raises BadInput for a limit, a capability or a command that cannot be understood.
    """
    resources = {
        name: value
        for name, value in (
            ("memory", units.memory(options.memory, options.memory_swap)),
            ("cpu", units.cpu(options.cpus)),
            ("pids", units.pids(options.pids_limit)),
        )
        if value
    }
    kinds = [kind for kind in defaults.NAMESPACES if not (kind == "network" and options.network == "host")]
    keep = capability_set(options.cap_add, options.cap_drop)
    mounts = copy.deepcopy(defaults.MOUNTS)
    if options.network == "host":
        # sysfs shows one network namespace and only its owner may mount it: bind the machine's.
        sys = next(mount for mount in mounts if mount["destination"] == "/sys")
        sys.update(type="bind", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "ro"])
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
            "user": {"uid": 0, "gid": 0, "username": options.user or image.get("User") or ""},
            "args": arguments(options, image),
            "env": environment(options, image),
            "cwd": options.workdir or image.get("WorkingDir") or "/",
            "capabilities": {"bounding": keep, "effective": keep, "permitted": keep},
            "noNewPrivileges": options.no_new_privileges,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": options.hostname,
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "cgroupsPath": cgroups_path,
            "resources": resources,
            "sysctl": dict(defaults.NETWORK_SYSCTLS) if "network" in kinds else {},
            "maskedPaths": defaults.MASKED_PATHS,
            "readonlyPaths": defaults.READONLY_PATHS,
        },
    }


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
    merged: dict[str, str] = {}
    given = [*(image.get("Env") or []), *options.env]
    terminal = ["TERM=xterm"] if options.tty else []
    for item in (defaults.PATH, f"HOSTNAME={options.hostname}", *terminal, *given):
        name, _, value = item.partition("=")
        merged[name] = value
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
