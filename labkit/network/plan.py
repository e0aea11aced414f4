"""Floor 2: the plan of a network: what it is, and which container has which name and address.

Owns: the file $LABKIT_RUN/network/NAME.json, one a network, written whole or not at all, and
the lock under which plans change.  Whoever only reads (the name service, `inspect`) needs no
lock: a plan that is read is always one that was true at some moment.

    {"name": "shop", "driver": "bridge", "interface": "shop", "kept": true, "internal": false,
     "subnet": "172.29.0.0/24", "gateway": "172.29.0.1", "subnet6": "", "gateway6": "", "parent": "",
     "containers": {ID: {"name": "web", "aliases": ["www"], "v4": "172.29.0.2", "v6": "",
                         "device": "eth0", "host_interface": "lk0123456789", "mac": "02:42:ac:1d:00:02"}}}

Read: flock(2); rename(2) on why a draft is renamed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from labkit import paths


class Member(NamedTuple):
    """One container on a network."""

    name: str  # of the container; "" when whoever attached it gave none
    aliases: tuple[str, ...]  # further names, on this network alone
    v4: str
    v6: str  # "" on a network without IPv6
    device: str  # its end inside: eth0
    host_interface: str  # the machine's end of the cable; "" where there is none (macvlan, ipvlan)
    mac: str

    def names(self) -> tuple[str, ...]:
        """Every name by which the others of this network find it."""
        return tuple(name for name in (self.name, *self.aliases) if name)


class Plan:
    """One network.  `subnet` is "" while the network is not whole: it does not exist then."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.driver = "bridge"
        self.interface = name  # of the bridge; of macvlan and ipvlan: ""
        self.kept = False  # made by `labkit network create`: it stays without containers
        self.internal = False  # no way out of it, and none in
        self.subnet = ""  # 172.29.0.0/24
        self.gateway = ""
        self.subnet6 = ""
        self.gateway6 = ""
        self.parent = ""  # of macvlan and ipvlan: the machine's own device
        self.containers: dict[str, Member] = {}

    @property
    def file(self) -> Path:
        """Where it is written."""
        return folder() / f"{self.name}.json"

    def save(self) -> None:
        """Write it whole or not at all."""
        plain = {**vars(self), "containers": {key: one._asdict() for key, one in self.containers.items()}}
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps(plain))
        draft.rename(self.file)

    def remove(self) -> None:
        """Forget it."""
        self.file.unlink(missing_ok=True)


def folder() -> Path:
    """Where the plans lie."""
    return paths.run() / "network"


def load(name: str) -> Plan:
    """The network's plan; an empty one (`subnet` is "") when there is no such network."""
    plan = Plan(name)
    try:
        plain: dict[str, Any] = json.loads(plan.file.read_text())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):  # such a name no network can have
            return plan
        raise
    members = plain.pop("containers")
    vars(plan).update(plain)
    plan.containers = {
        key: Member(**{**fields, "aliases": tuple(fields["aliases"])}) for key, fields in members.items()
    }
    return plan


def load_all() -> list[Plan]:
    """Every network that exists, in order of name."""
    return [load(file.stem) for file in sorted(folder().glob("*.json"))]


def networks_of(container: str) -> list[Plan]:
    """The networks that a container is on."""
    return [plan for plan in load_all() if container in plan.containers]


@contextmanager
def locked() -> Iterator[None]:
    """Nobody else changes a plan meanwhile.

    One lock for all networks: they share the machine's addresses and one nft table.
    """
    folder().mkdir(parents=True, exist_ok=True)
    fd = os.open(folder() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        # By name: a process that is born meanwhile may hold the same open file.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
