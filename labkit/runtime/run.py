"""Floor 3: `labkit run`, from an image's name to an exit status.

Owns: the order of the floors: image, layers, writable layer, config.json, cgroup and
namespaces, network, published ports, go; and giving all of it back in the end.

Read: docker-run(1) for what people expect of each option.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from labkit import errors
from labkit.errors import BadInput, LabError
from labkit.kernel import process
from labkit.kernel.ledger import Ledger
from labkit.network import names, ports
from labkit.runtime import channel, container, spec, state
from labkit.storage import overlay, volumes

NETWORKS = ("bridge", "none", "host")


class Request(NamedTuple):
    """One `labkit run`, as written on the command line."""

    image: str
    options: spec.Options
    name: str | None = None
    publish: tuple[str, ...] = ()
    remove: bool = False
    detach: bool = False
    init: bool = True
    layers: tuple[Path, ...] = ()  # instead of an image: folders, bottom first
    image_config: dict[str, Any] | None = None


def run(request: Request) -> int:
    """Start the container; return its exit status, or 0 with its id printed when detached.

    Raises LabError; then nothing is left behind.
    """
    container.require_root()
    mappings = [ports.parse(text) for text in request.publish]
    if request.options.network not in NETWORKS:
        raise BadInput(f"there is no network {request.options.network!r}", next=f"one of {', '.join(NETWORKS)}")
    if mappings and request.options.network != "bridge":
        raise BadInput("--publish needs --network bridge", why=f"with {request.options.network} nothing leads in")
    layers, image_config = resolve(request)
    spec.build(request.options, image_config, cgroups_path="/")  # a bad option is said before anything is made
    if not request.detach:
        return live(request, mappings, layers, image_config, None)
    mine, theirs = channel.pair()
    if os.fork() == 0:
        mine.close()
        os._exit(_monitor(request, mappings, layers, image_config, theirs))
    theirs.close()
    answer = mine.receive()
    if answer is None:
        raise LabError("the container's monitor died before it could say why", next="labkit reset")
    if "error" in answer:
        words = answer["error"]
        raise getattr(errors, answer["kind"])(
            words["what"], why=words["why"], next=words["next"], status=words["status"]
        )
    print(answer["id"])
    return 0


def _monitor(
    request: Request,
    mappings: list[ports.PortMapping],
    layers: list[Path],
    image_config: dict[str, Any],
    line: channel.Channel,
) -> int:
    """A detached container's keeper: what a shim is to containerd."""
    try:
        os.setsid()
        process.set_title("labkit-monitor")
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        live(request, mappings, layers, image_config, line)
    except BaseException as error:
        if not isinstance(error, LabError):
            error = LabError(f"labkit itself failed: {error!r}")
        words = {"what": error.what, "why": error.why, "next": error.next, "status": error.status}
        line.send({"error": words, "kind": type(error).__name__})
        return 1
    return 0


def resolve(request: Request) -> tuple[list[Path], dict[str, Any]]:
    """The layer folders, bottom first, and the image's `config` object."""
    if request.layers:
        return list(request.layers), request.image_config or {}
    from labkit.image import layers, store

    image = store.Store().obtain(request.image)
    return layers.layer_folders(image), dict(image.config.config)


def live(
    request: Request,
    mappings: list[ports.PortMapping],
    layers: list[Path],
    image_config: dict[str, Any],
    line: channel.Channel | None,
) -> int:
    """The whole life of a container in this process; `line` tells a detached caller of its start."""
    signal.signal(signal.SIGTERM, _unwind)
    identifier = os.urandom(32).hex()
    options = request.options
    if not options.hostname:
        hostname = os.uname().nodename if options.network == "host" else identifier[:12]
        options = options._replace(hostname=hostname)
    config = spec.build(options, image_config, cgroups_path=f"/labkit/{identifier}")
    folder = state.folder(identifier)
    ledger = Ledger(identifier)
    me = os.getpid()
    try:
        with state.locked():
            name = state.take_name(request.name)
            keeper = ledger.record("process", pid=me, start=process.start_time(me) or 0)
            root = overlay.prepare(folder, layers, ledger)
            note = {
                "ociVersion": "1.2.1",
                "id": identifier,
                "name": name,
                "status": "creating",
                "image": request.image,
                "command": config["process"]["args"],
                "created": time.time(),
                "boot": state.boot_id(),
                "cgroup": config["linux"]["cgroupsPath"],
                "ports": [str(mapping) for mapping in mappings],
                "stopSignal": image_config.get("StopSignal") or "SIGTERM",
                "remove": request.remove,
            }
            state.save(note)
        for volume in options.volumes:
            volumes.prepare(volume)
        write_etc(folder, config)
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        one = container.Container(identifier, config, root, folder, ledger)
        with state.locked():
            one.create(_stdio(folder, request), init=request.init)
        status = _between_start_and_end(one, note, request, mappings, line)
    except BaseException:
        # A container that never ran is not kept, whether --rm was given or not.
        give_back(ledger, keep=False)
        raise
    note.update(status="stopped", exitCode=status, oomKilled=one.oom_kills() > 0)
    if note["oomKilled"]:
        print(_oom_message(name, options.memory, one.oom_kills()), file=sys.stderr)
    if not request.remove:
        state.save(note)
        ledger.forget(keeper)
    give_back(ledger, keep=not request.remove)
    return status


def _unwind(number: int, frame: FrameType | None) -> None:
    """Until the container runs, SIGTERM ends this process the way an error does: all is given back."""
    raise SystemExit(128 + number)


def _between_start_and_end(
    one: container.Container,
    note: dict[str, Any],
    request: Request,
    mappings: list[ports.PortMapping],
    line: channel.Channel | None,
) -> int:
    endpoint = None
    if request.options.network == "bridge":
        from labkit.network import bridge

        endpoint = bridge.attach(one.id, one.pid, one.ledger)
        note["address"] = endpoint.address
        note["interface"] = endpoint.host_interface
        write_names(one.folder, one.config["hostname"], endpoint.address)
        if mappings:
            note["ports"] = [str(mapping) for mapping in ports.publish(mappings, endpoint, one.id, one.ledger)]
    else:
        write_names(one.folder, one.config["hostname"], None)
    note.update(status="running", pid=one.pid, start=one.start_time)
    state.save(note)
    terminal = None
    if one.config["process"]["terminal"]:
        from labkit.runtime.console import Console

        terminal = Console()
    one.start(endpoint.to_json() if endpoint else None, terminal.open if terminal else None)
    one.forward_signals()
    if line is not None:
        line.send({"id": one.id})
        line.close()
    if terminal:
        log = os.open(one.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if request.detach else 1
        terminal.copy(log)
    return one.wait()


def _stdio(folder: Path, request: Request) -> list[int]:
    """Pass the caller's streams through; a detached container writes to its log."""
    if not request.detach:
        return [0, 1, 2]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return [null, log, log]


def write_etc(folder: Path, config: dict[str, Any]) -> None:
    """The three files that no image can know; bound over the image's, as Docker does."""
    etc = folder / "etc"
    etc.mkdir()
    for name in ("hostname", "hosts", "resolv.conf"):
        (etc / name).touch()
        config["mounts"].append(
            {"destination": f"/etc/{name}", "type": "bind", "source": str(etc / name), "options": ["rbind", "nodev"]}
        )


def write_names(folder: Path, hostname: str, address: str | None) -> None:
    """Fill those files once the address is known, just before the container sees them."""
    etc = folder / "etc"
    (etc / "hostname").write_text(hostname + "\n")
    (etc / "hosts").write_text(names.hosts(hostname, address))
    (etc / "resolv.conf").write_text(names.resolv_conf())


def give_back(ledger: Ledger, *, keep: bool) -> None:
    """Release what a container holds; `keep` leaves its folder for `labkit ps --all` and `rm`."""
    entries = ledger.entries()
    if any(entry.kind == "link" for entry in entries):
        from labkit.network import bridge

        ports.unpublish(ledger.owner)
        bridge.detach(ledger.owner, ledger)
    for entry in reversed(ledger.entries()):
        if not (keep and entry.kind == "directory"):
            ledger.release(entry)
    with state.locked():
        container.release_cgroup_parent()


def _oom_message(name: str, limit: str | None, count: int) -> str:
    return (
        f"labkit run: the kernel killed a process of {name} for want of memory\n"
        f"  why:  its cgroup reached memory.max ({limit or 'set from outside'}); memory.events says oom_kill {count}\n"
        f"  next: a larger --memory, or a smaller appetite"
    )
