"""Floor 2: a container on a network that CNI plugins make: ADD before it starts, DEL when it has ended.

    python -m labkit.network.cni FILE     what the ledger runs after a crash: DEL, by the note in FILE

Owns: the chain of plugins; the note of what was done, by which a DEL finds back even when the
configuration has changed; and the container's network namespace under a name of its own, since
a plugin wants to enter it once more after the container's last process has gone.

Read: containernetworking/cni, SPEC.md, section 3 (execution) and 4 (delegation); ip-netns(8) on names.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labkit import paths
from labkit.errors import BadInput, LabError, NotFound
from labkit.kernel import mounts
from labkit.kernel.ledger import Entry, Ledger
from labkit.network import cni_config
from labkit.network.cni_config import CHECKED_SINCE, Configuration
from labkit.network.cni_exec import Call, execute
from labkit.network.ports import PortMapping

PREFIX = "cni:"  # labkit run --network cni:NAME
ROLE = "cni"
IFNAME = "eth0"


class Place(NamedTuple):
    """What the last plugin's result says of the container's place in the network."""

    addresses: tuple[str, ...]  # with prefix lengths
    interfaces: tuple[str, ...]  # the machine's ends
    nameservers: tuple[str, ...]

    @classmethod
    def of(cls, result: dict[str, Any]) -> Place:
        """Read a result of version 0.3.0 or later."""
        return cls(
            tuple(one["address"] for one in result.get("ips", ())),
            tuple(one["name"] for one in result.get("interfaces", ()) if not one.get("sandbox")),
            tuple(result.get("dns", {}).get("nameservers", ())),
        )


def attach(
    container: str, pid: int, ledger: Ledger, name: str, *, ports: Sequence[PortMapping] = (), ifname: str = IFNAME
) -> Place:
    """Let the plugins of the CNI network `name` configure the network namespace of the process `pid`.

    Raises LabError; the plugins have taken back then what they had done.
    """
    configuration = cni_config.load(name)
    path = cni_config.plugin_path()
    _ask_versions(configuration)
    runtime = {"portMappings": [_mapping(one) for one in ports]} if ports else {}
    if ports and not any(plugin.get("capabilities", {}).get("portMappings") for plugin in configuration.plugins):
        raise BadInput(
            f"the CNI network {name} publishes no ports",
            why="none of its plugins has the capability portMappings",
            next=f'add {{"type": "portmap", "capabilities": {{"portMappings": true}}}} to {configuration.file}',
        )
    netns = _keep_namespace(container, pid, ledger)
    note = paths.run() / "cni" / f"{container}.json"
    ledger.record("file", path=str(note))
    call = Call(container, str(netns), ifname, path)
    plain = {"file": str(configuration.file), "name": name, "cniVersion": configuration.version,
             "plugins": configuration.plugins, "disableCheck": not configuration.checked,
             "call": call._asdict(), "runtime": runtime}  # fmt: skip
    _write(note, plain)
    command = [sys.executable, "-m", "labkit.network.cni", str(note)]
    ledger.record("command", argv=json.dumps(command), role=ROLE)
    try:
        result: dict[str, Any] = {}
        for plugin in configuration.plugins:
            result = _run("ADD", plugin, configuration, call, runtime, result)
        _write(note, {**plain, "result": result})
        return Place.of(result)
    except BaseException:
        with contextlib.suppress(LabError):  # it is the first error that counts
            detach(ledger)
        raise


def detach(ledger: Ledger) -> None:
    """DEL for every CNI network of this owner; what DEL needed goes with the ledger's other entries.

    Raises LabError when a plugin refuses; the entry stays, so that `labkit reset` tries again.
    """
    for entry in reversed(ledger.entries()):
        if is_ours(entry):
            delete(Path(json.loads(str(entry.fields["argv"]))[-1]))
            ledger.forget(entry)


def is_ours(entry: Entry) -> bool:
    """Whether an entry stands for a CNI network."""
    return entry.kind == "command" and entry.fields.get("role") == ROLE


def delete(note: Path) -> None:
    """DEL, last plugin first, by the note alone; goes on past one that refuses, and raises its LabError then."""
    try:
        plain = json.loads(note.read_text())
    except FileNotFoundError:
        return
    configuration, call, runtime = _read(plain)
    if not mounts.is_mounted(call.netns):
        call = call._replace(netns="")
    failures: list[LabError] = []
    for plugin in reversed(configuration.plugins):
        try:
            _run("DEL", plugin, configuration, call, runtime, plain.get("result", {}))
        except LabError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def check(container: str) -> bool:
    """CHECK: whether all is still as ADD left it; False when the configuration says not to ask.

    Raises NotFound for a container without a CNI network, LabError with the plugin's words for what is broken.
    """
    note = paths.run() / "cni" / f"{container}.json"
    try:
        plain = json.loads(note.read_text())
    except FileNotFoundError:
        raise NotFound(f"container {container[:12]} is on no CNI network") from None
    configuration, call, runtime = _read(plain)
    if not configuration.checked or not configuration.at_least(CHECKED_SINCE):
        return False
    for plugin in configuration.plugins:
        _run("CHECK", plugin, configuration, call, runtime, plain.get("result", {}))
    return True


def versions(kind: str) -> tuple[str, ...]:
    """VERSION: the versions of the specification that a plugin speaks. Raises LabError."""
    path = cni_config.plugin_path()
    program = cni_config.program(kind, path)
    said = execute(program, "VERSION", Call("", "", "", path), {"cniVersion": cni_config.VERSIONS[-1]})
    return tuple(said.get("supportedVersions", ()))


def _ask_versions(configuration: Configuration) -> None:
    """Before anything is made: a plugin that refuses ADD for its version would refuse the DEL too."""
    for kind in dict.fromkeys(plugin["type"] for plugin in configuration.plugins):
        spoken = versions(kind)
        if configuration.version not in spoken:
            raise BadInput(
                f"the CNI plugin {kind} does not speak cniVersion {configuration.version}",
                why=f"it speaks {', '.join(spoken)}",
                next=f"another cniVersion in {configuration.file}",
            )


def _run(
    command: str,
    plugin: dict[str, Any],
    configuration: Configuration,
    call: Call,
    runtime: dict[str, Any],
    previous: dict[str, Any],
) -> dict[str, Any]:
    """One plugin of the list: its part of the configuration, and the result so far."""
    asked = {key: value for key, value in plugin.items() if key != "capabilities"}
    asked |= {"name": configuration.name, "cniVersion": configuration.version}
    # Each is told of those wishes alone that it says it can fulfil.
    wishes = {key: value for key, value in runtime.items() if plugin.get("capabilities", {}).get(key)}
    if wishes:
        asked["runtimeConfig"] = wishes
    if previous and (command == "ADD" or configuration.at_least(CHECKED_SINCE)):
        asked["prevResult"] = previous
    return execute(cni_config.program(plugin["type"], call.path), command, call, asked)


def _mapping(one: PortMapping) -> dict[str, Any]:
    if not one.host_port:
        raise BadInput("a CNI network takes no port of its own choice", next=f"--publish 8080:{one.container_port}")
    mapping = {"hostPort": one.host_port, "containerPort": one.container_port, "protocol": one.protocol}
    return mapping if one.host == "0.0.0.0" else {**mapping, "hostIP": one.host}


def _keep_namespace(container: str, pid: int, ledger: Ledger) -> Path:
    """Give the namespace a name, as `ip netns` does: a file with the namespace mounted on it."""
    name = paths.run() / "netns" / container
    name.parent.mkdir(parents=True, exist_ok=True)
    ledger.record("file", path=str(name))
    name.touch()
    ledger.record("mount", path=str(name))
    try:
        mounts.mount(f"/proc/{pid}/ns/net", name, None, ["bind"])
    except LabError as error:
        what = f"cannot keep the network namespace of process {pid} under a name"
        raise LabError(what, why=error.why, next=error.next) from error
    return name


def _write(note: Path, plain: dict[str, Any]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    draft = note.with_suffix(".new")
    draft.write_text(json.dumps(plain))
    draft.rename(note)


def _read(plain: dict[str, Any]) -> tuple[Configuration, Call, dict[str, Any]]:
    return cni_config.parse(plain, Path(plain["file"])), Call(**plain["call"]), plain["runtime"]


def main(argv: list[str]) -> int:
    """DEL by a note; what failed goes to standard error, for the ledger's own message."""
    try:
        delete(Path(argv[0]))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
