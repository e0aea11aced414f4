"""Floor 2: CNI network configurations: which there are, by name, and the plugins that each lists.

Owns: where configurations and plugins are looked for, and what one must hold before anything is run.

    $NETCONFPATH  the folder of configurations, /etc/cni/net.d    (the names that cnitool knows)
    $CNI_PATH     the folders of plugins, /opt/cni/bin:/usr/lib/cni

Read: containernetworking/cni, SPEC.md, section 1 (the format); containernetworking-plugins in Debian.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from labkit.errors import BadInput, LabError, NotFound

# Newest last.  Before 0.3.0 results had another form, which no current plugin list needs.
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CHECKED_SINCE = "0.4.0"  # CHECK, and the result of ADD handed to DEL
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # SPEC.md, section 2, of networks and of containers


class Configuration(NamedTuple):
    """One network: the plugins that make it, in order."""

    name: str
    version: str
    plugins: tuple[dict[str, Any], ...]
    file: Path
    checked: bool = True  # whether CHECK means anything here (disableCheck)

    def at_least(self, version: str) -> bool:
        """Whether it speaks this version of the specification."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)


def folder() -> Path:
    """Where configurations lie."""
    return Path(os.environ.get("NETCONFPATH", "/etc/cni/net.d"))


def plugin_path() -> str:
    """The folders of plugins, joined by colons, as plugins want it for the helpers that they call."""
    return os.environ.get("CNI_PATH", "/opt/cni/bin:/usr/lib/cni")


def program(kind: str, path: str) -> Path:
    """The plugin of a type. Raises NotFound when no folder has it, BadInput for a type that is a path."""
    if not NAME.fullmatch(kind):
        raise BadInput(f"{kind!r} is no name of a CNI plugin", why="a type is the bare name of an executable")
    for place in path.split(":"):
        if place and os.access(found := Path(place) / kind, os.X_OK) and found.is_file():
            return found
    raise NotFound(
        f"there is no CNI plugin {kind}",
        why=f"none of {path} has an executable of that name",
        next="apt-get install containernetworking-plugins, or set CNI_PATH to where it is",
    )


def load(name: str) -> Configuration:
    """The configuration of the network called `name`; of several the first by file name, as all runtimes take it.

    Raises NotFound, naming those that there are; BadInput for one that cannot be used.
    """
    others: list[str] = []
    broken: list[LabError] = []
    for file in files():
        try:
            found = read(file)
        except LabError as error:
            broken.append(error)
            continue
        if found.name == name:
            return found
        others.append(found.name)
    if broken:
        raise broken[0]  # it may be the one that was meant
    raise NotFound(
        f"there is no CNI network {name!r}",
        why=f"{folder()} has {', '.join(others)}" if others else f"{folder()} has no configuration",
        next=f"write {folder()}/{name}.conflist, or set NETCONFPATH to where it is",
    )


def files() -> list[Path]:
    """The configuration files, in the order in which they count."""
    return sorted(file for file in folder().glob("*") if file.suffix in (".conf", ".conflist", ".json"))


def read(file: Path) -> Configuration:
    """One file: a list of plugins, or the older form with a single one. Raises BadInput."""
    try:
        plain = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the CNI configuration {file}", why=str(error)) from error
    return parse(plain, file)


def parse(plain: object, file: Path) -> Configuration:
    """The same for what is read already."""
    if not isinstance(plain, dict):
        raise _bad(file, "it is no JSON object")
    plugins = plain.get("plugins", [plain]) if "type" in plain or "plugins" in plain else []
    if not isinstance(plugins, list) or not plugins:
        raise _bad(file, "it lists no plugins")
    for plugin in plugins:
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str):
            raise _bad(file, "each entry of plugins needs a type, the name of an executable")
    name, version = plain.get("name"), plain.get("cniVersion", "0.1.0")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _bad(file, f"its name is {name!r}; letters, digits, dots, hyphens and underscores make one")
    if version not in VERSIONS:
        raise _bad(file, f"its cniVersion is {version!r}", f"one of {', '.join(VERSIONS)}")
    return Configuration(name, version, tuple(plugins), file, not plain.get("disableCheck", False))


def _bad(file: Path, why: str, next: str = "") -> BadInput:
    return BadInput(f"cannot use the CNI configuration {file}", why=why, next=next)
