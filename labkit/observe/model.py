"""Reading floor: what a snapshot of the kernel holds, as plain data.

Owns: the types alone.  Readers fill them, differences compare them, drawings show them;
everything here can be written down as JSON and read back.

Read: proc(5), namespaces(7), proc_pid_mountinfo(5), cgroups(7), rtnetlink(7).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from labkit.observe.mountinfo import Mount


class Process(NamedTuple):
    """One process.  (pid, started) names it for ever: a pid alone comes back after a while."""

    pid: int  # as the reader's pid namespace numbers it
    parent: int  # 0: none, or one that the reader cannot see
    started: int  # clock ticks since boot (field 22 of /proc/PID/stat)
    name: str  # comm, at most 15 bytes
    command: tuple[str, ...]  # argv; empty for a kernel thread
    state: str  # one letter, proc(5)
    inside: tuple[int, ...]  # NSpid: its number in each pid namespace that it is in, the reader's first
    threads: int
    uid: int  # effective
    gid: int  # effective
    namespaces: Mapping[str, int]  # {kind: inode}; kinds that the reader may not see are missing
    capabilities: int  # effective, a bit mask
    seccomp: int  # 0 none, 1 strict, 2 filter
    no_new_privileges: bool
    cgroup: str  # path in the version 2 tree, as the reader sees it; "" without one


class Namespace(NamedTuple):
    """One namespace, and what keeps it alive."""

    kind: str
    inode: int
    members: tuple[int, ...]  # pids, the lowest first
    files: tuple[str, ...]  # places where it is bind-mounted (ip netns), and /proc/PID/fd/N that hold it open
    owner: int  # inode of the user namespace that owns it; 0 where that cannot be seen
    parent: int  # inode of the parent (pid and user namespaces); 0 otherwise
    # The kernel's number that never comes back, where it tells one (Linux 6.18; mount namespaces 6.11); else 0.
    # An inode's number comes back as soon as the namespace has gone.
    unique: int = 0


class Cgroup(NamedTuple):
    """One cgroup of version 2."""

    path: str  # below the tree's root, "/" itself for the root
    controllers: tuple[str, ...]
    limits: Mapping[str, str]  # {file: text} of the files that hold a limit
    counters: Mapping[str, int]  # {file or file:key: number} of those that count
    members: tuple[int, ...]


class Link(NamedTuple):
    """One network device."""

    index: int  # type: ignore[assignment]  # the kernel's word; it hides tuple.index
    name: str
    kind: str  # veth, bridge, ...; "" for a device that is none of these
    up: bool
    mac: str
    mtu: int
    master: int  # index of the bridge that it is a port of; 0: none
    peer: int  # of a veth: index of the other end, in that end's namespace; 0: none
    peer_network: int  # inode of the other end's network namespace; 0: this one, or unknown
    addresses: tuple[str, ...]  # with prefix length: 172.17.0.1/16


class Route(NamedTuple):
    """One route of the main table."""

    to: str  # 10.0.0.0/8, or default
    via: str  # the gateway, or ""
    device: str


class Network(NamedTuple):
    """What one network namespace holds."""

    inode: int
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    rules: tuple[str, ...] | None  # nft rules, one a line; None: not asked for


class Snapshot(NamedTuple):
    """What the kernel held at one moment, in the scope that was asked for."""

    processes: Mapping[int, Process]  # by pid
    namespaces: Mapping[tuple[str, int], Namespace]  # by (kind, inode)
    mounts: Mapping[int, tuple[Mount, ...]]  # by inode of the mount namespace; parents before children
    cgroups: Mapping[str, Cgroup]  # by path
    networks: Mapping[int, Network]  # by inode of the network namespace
    # Tables of mount namespaces that the scope shares with others.  A new mount namespace begins as a copy
    # of one of them, so that a difference needs them; nothing in them is the scope's own.
    origins: Mapping[int, tuple[Mount, ...]] = MappingProxyType({})


class Change(NamedTuple):
    """One thing that appeared, went or changed between two snapshots."""

    sign: str  # "+", "-" or "~"
    # process, mount, mount tree (several that changed alike), link, address, route, rule, cgroup, limit,
    # counter, or "pid namespace" and the like
    kind: str
    name: str  # which one, as a person would name it
    detail: str  # what about it: "pid 1 inside, 4711 outside"; for "~": "memory.max max -> 1048576"
