"""Odd machines for tests of pictures: names that no one would choose, trees that loop, wires that lead nowhere."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from labkit.observe.model import Change, Link, Namespace, Network, Process, Route, Snapshot
from labkit.observe.mountinfo import Mount
from labkit.observe.stack import File, Layer, Stack

NASTY = ("", " ", "<&>'\"", "]]>", "\x00", "\x1b[2J", "\n\n", "\u202eabc", "$x^2$", "a" * 255, "W" * 255, "日本" * 60,
         "e" + "\u0301" * 60, "\ufffe\uffff", "…" * 40, "%s{0}\\", "\U0001f433" * 30, "--", "\ufdfa" * 20)  # fmt: skip
INODES = st.integers(4026531834, 4026531850) | st.integers(0, 2**32)


def odd_names() -> st.SearchStrategy[str]:
    """What the kernel takes as a name, and more: any bytes, any letters, and the classics."""
    return st.sampled_from(NASTY) | st.text(max_size=255) | st.binary(max_size=255).map(os.fsdecode)


@st.composite
def processes(draw: st.DrawFn, most: int = 30) -> dict[int, Process]:
    """Processes whose parents may be missing, younger, or themselves."""
    pids = draw(st.lists(st.integers(1, 60), unique=True, max_size=most))
    found = {}
    for pid in pids:
        spaces = draw(st.dictionaries(st.sampled_from(["mnt", "pid", "net", "user", "odd_kind", "pid_for_children"]),
                                      INODES, max_size=5))  # fmt: skip
        found[pid] = Process(pid, draw(st.integers(0, 60)), draw(st.integers(0, 9)), draw(odd_names()),
                             tuple(draw(st.lists(odd_names(), max_size=2))), "S",
                             (pid, *draw(st.lists(st.integers(1, 2**22), max_size=3))), 1, 0, 0, spaces, 0, 0, False,
                             "")  # fmt: skip
    return found


@st.composite
def links(draw: st.DrawFn) -> tuple[Link, ...]:
    """Devices with any master and peer, itself among them."""
    small = st.integers(0, 9)
    return tuple(
        Link(draw(small), draw(odd_names()), draw(st.sampled_from(["veth", "veth", "bridge", "", "<&"])),
             draw(st.booleans()), "02:00:00:00:00:01", 1500, draw(small), draw(small), draw(st.just(0) | INODES),
             tuple(draw(st.lists(odd_names(), max_size=5))))
        for _ in range(draw(st.integers(0, 6)))
    )  # fmt: skip


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A machine as no kernel would tell it; a picture of it must hold all the same."""
    found = draw(processes())
    networks: dict[int, Network] = {}
    for inode in draw(st.lists(INODES, max_size=5, unique=True)):
        route = st.builds(Route, st.just("default") | odd_names(), odd_names(), odd_names())
        networks[inode] = Network(inode, draw(links()), tuple(draw(st.lists(route, max_size=5))), None)
    spaces: dict[tuple[str, int], Namespace] = {}
    for kind, inode in draw(st.lists(st.tuples(st.sampled_from(["pid", "net", "mnt"]), INODES), max_size=5)):
        spaces[kind, inode] = Namespace(kind, inode, tuple(draw(st.lists(st.integers(1, 60), max_size=2))),
                                        tuple(draw(st.lists(odd_names(), max_size=2))), 0, draw(INODES))  # fmt: skip
    return Snapshot(found, spaces, {}, {}, networks)


def mounts() -> st.SearchStrategy[list[Mount]]:
    """Mount tables with loops, the same number twice, and any words."""
    words: Any = st.sampled_from(["shared:1", "master:2", "unbindable", "propagate_from:3", "shared:4294967295"])
    one = st.builds(Mount, st.integers(1, 12), st.integers(0, 12), st.just("0:1"), st.just("/") | odd_names(),
                    odd_names(), st.sampled_from([("rw",), ("ro", "nosuid")]), st.lists(words, max_size=4).map(tuple),
                    odd_names(), odd_names(), st.sampled_from(["rw", "ro,size=1", ""]))  # fmt: skip
    return st.lists(one, max_size=20)


def stacks(layers: int = 7) -> st.SearchStrategy[Stack]:
    """Layers over a few names, so that they meet; with every sign in every place."""
    part = st.sampled_from(["a", "b", "c", "<&", "W" * 255, "\x1b"])
    path = st.lists(part, min_size=1, max_size=3).map("/".join)
    kind = st.sampled_from(["file", "folder", "folder", "link", "whiteout", "other"])
    where = st.sampled_from(["", "", "", "a", "/b/c", "/", "b"])
    file = st.builds(File, path, kind, st.integers(0, 10**12), st.booleans(), where, st.booleans())
    layer = st.builds(Layer, odd_names(), st.lists(file, max_size=10).map(tuple), st.booleans())
    return st.lists(layer, max_size=layers).map(lambda some: Stack(tuple(some)))


def changes() -> st.SearchStrategy[list[Change]]:
    """Differences of any kind."""
    sign = st.sampled_from(["+", "-", "~", "", "<&", "\x00"])
    return st.lists(st.builds(Change, sign, st.sampled_from(["mount", "link", "x" * 255]) | odd_names(), odd_names(),
                              odd_names()), max_size=20)  # fmt: skip
