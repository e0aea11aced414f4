"""Floor 3: `labkit run`, from an image's name to an exit status.

Owns: the order of the floors: image, layers, writable layer, config.json, cgroup and
namespaces, network, published ports, go; and giving all of it back in the end.

Read: docker-run(1) for what people expect of each option.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from labkit import errors
from labkit.errors import LabError
from labkit.kernel import process
from labkit.kernel.ledger import Ledger
from labkit.network import ports
from labkit.runtime import channel, container, ending, spec, state, user, wiring
from labkit.runtime.groups import cgroupfs
from labkit.runtime.life import verbs
from labkit.storage import overlay, volumes

ANY_IMAGE = {"Cmd": ["true"]}  # what an option may not depend on


class Request(NamedTuple):
    """One `labkit run`, as written on the command line."""

    image: str
    options: spec.Options
    name: str | None = None
    publish: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    address: str = ""
    address6: str = ""
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
    mappings = [each for text in request.publish for each in ports.parse(text)]
    place(request)
    spec.build(request.options, ANY_IMAGE, cgroups_path="/")  # a bad option is said before an image is fetched
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
    for warning in answer["warnings"]:
        print(f"labkit run: {warning}", file=sys.stderr)
    print(answer["id"])
    return 0


def place(request: Request) -> wiring.Wiring:
    """What its network options come to, as the networks and containers are now. Raises LabError."""
    return wiring.understand(
        request.options.network,
        published=bool(request.publish),
        aliases=request.aliases,
        address=request.address,
        address6=request.address6,
    )


def _hostname(identifier: str, where: wiring.Wiring) -> str:
    if where.other:
        return str(json.loads((state.folder(where.other["id"]) / "config.json").read_text())["hostname"])
    return os.uname().nodename if where.mode == "host" else identifier[:12]


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
    ending.unwind()
    os.umask(0o022)  # what is made here is seen inside, by any user
    identifier = os.urandom(32).hex()
    where = place(request)
    options = request.options._replace(network_path=where.path)
    if not options.hostname:
        options = options._replace(hostname=_hostname(identifier, where))
    config = spec.build(options, image_config, cgroups_path=container.cgroups_path(identifier), init=request.init)
    folder = state.folder(identifier)
    ledger = Ledger(identifier)
    me = os.getpid()
    try:
        with state.locked():
            name = state.take_name(request.name)
            keeper = {"pid": me, "start": process.start_time(me) or 0}
            ledger.record("process", **keeper)
            root = overlay.prepare(folder, layers, ledger)
            note = {
                "ociVersion": "1.2.1",
                "id": identifier,
                "name": name,
                "status": "creating",
                "keeper": keeper,
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
        (folder / "rootfs").mkdir()
        for volume in options.volumes:
            volumes.prepare(volume)
        write_etc(folder, config)
        spec.become(config, user.in_layers(options.user or image_config.get("User") or "", root, folder / "rootfs"))
        if options.tty:
            verbs.sized(config["process"])
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        one = container.Container(identifier, config, root, folder, ledger)
        status = _start_to_end(one, note, request, where, mappings, line)
    except BaseException:
        # A container that never ran is not kept, whether --rm was given or not.
        give_back(ledger, keep=False)
        raise
    note.update(status="stopped", exitCode=status, oomKilled=one.oom_kills() > 0)
    if note["oomKilled"]:
        print(_oom_message(name, options.limits.get("memory"), one.oom_kills()), file=sys.stderr)
    if not request.remove:
        state.save(note)
    give_back(ledger, keep=not request.remove)
    return status


def _start_to_end(
    one: container.Container,
    note: dict[str, Any],
    request: Request,
    where: wiring.Wiring,
    mappings: list[ports.PortMapping],
    line: channel.Channel | None,
) -> int:
    def connect() -> None:
        wiring.connect(one, note, where, mappings)
        note.update(status="running", pid=one.pid, start=one.start_time, cgroup=one.group)
        state.save(note)
        # Before the command can run: it waits with all signals blocked, so that none is lost.
        one.forward_signals()
        ending.check()

    with one.run(_stdio(one.folder, request), connect) as terminal:
        for warning in one.warnings if line is None else ():
            print(f"labkit run: {warning}", file=sys.stderr)
        if line is not None:
            line.send({"id": one.id, "warnings": one.warnings})
            line.close()
        log = os.open(one.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if request.detach else 1
        terminal.attend(log)
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


def give_back(ledger: Ledger, *, keep: bool) -> None:
    """Release what a container holds; `keep` leaves its folder for `labkit ps --all` and `rm`."""
    wiring.give_back(ledger)
    groups = []
    for entry in reversed(ledger.entries()):
        if not (keep and entry.kind == "directory"):
            ledger.release(entry)
        if entry.kind == "cgroup":
            groups.append(str(entry.fields["path"]))
    with state.locked():
        container.release_cgroup_parent()
    for group in groups:  # of an ordinary user's, the folder above is the runtime's
        cgroupfs.leave(os.path.dirname(group))


def _oom_message(name: str, limit: str | None, count: int) -> str:
    return (
        f"labkit run: the kernel killed a process of {name} for want of memory\n"
        f"  why:  its cgroup reached memory.max ({limit or 'set from outside'}); memory.events says oom_kill {count}\n"
        f"  next: a larger --memory, or a smaller appetite"
    )
