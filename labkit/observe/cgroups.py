"""Reading floor: the cgroup tree of version 2, with limits and counters.

Owns: which files hold a limit and which count, and the two forms that counters have.
A cgroup that goes while it is being read is left out.

Read: Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from labkit.kernel.mounts import find
from labkit.observe.model import Cgroup

LIMITS = (
    *("cgroup.subtree_control", "cgroup.freeze", "cgroup.type", "cgroup.max.depth", "cgroup.max.descendants"),
    *("cpu.max", "cpu.weight", "cpu.idle", "cpuset.cpus", "cpuset.mems", "cpuset.cpus.partition"),
    *("memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.max", "memory.oom.group"),
    *("pids.max", "io.max", "io.weight", "io.latency"),
)
COUNTERS = (
    *("cgroup.events", "cpu.stat", "memory.current", "memory.peak", "memory.swap.current", "memory.events"),
    *("pids.current", "pids.peak", "pids.events", "io.stat"),
)
WANTED = frozenset(("cgroup.controllers", "cgroup.procs", *LIMITS, *COUNTERS))


def read(paths: Iterable[str] = ("/",)) -> dict[str, Cgroup]:
    """The cgroups at these paths and all below them, in order of path; {} on a machine without version 2."""
    wanted = list(paths)
    top = find("cgroup2") if wanted else None
    found: dict[str, Cgroup] = {}
    for path in wanted if top else ():
        _walk(f"{top}{path.rstrip('/')}", path.rstrip("/") or "/", found)
    return dict(sorted(found.items()))


def _walk(folder: str, path: str, found: dict[str, Cgroup]) -> None:
    texts, below = {}, []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in WANTED:
                    texts[entry.name] = _text(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
    except FileNotFoundError:
        return
    found[path] = parse(path, texts)
    for name in below:
        _walk(f"{folder}/{name}", f"{path.rstrip('/')}/{name}", found)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        # A threaded cgroup shows no processes; pressure and some controllers refuse in the root; root alone may.
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV, errno.EACCES, errno.EPERM, errno.EINVAL):
            return ""
        if error.errno in (errno.ENOENT, errno.ENODEV):
            raise FileNotFoundError(path) from error
        raise


def parse(path: str, texts: dict[str, str]) -> Cgroup:
    """A cgroup from the texts of its files. Raises ValueError for a counter that is no number."""
    limits = {name: texts[name].strip() for name in LIMITS if name in texts}
    counters: dict[str, int] = {}
    for name in COUNTERS:
        counters.update(parse_counter(name, texts.get(name, "")))
    pids = {int(word) for word in texts.get("cgroup.procs", "").split()}
    pids.discard(0)  # processes of a pid namespace that the reader does not see
    return Cgroup(path, tuple(texts.get("cgroup.controllers", "").split()), limits, counters, tuple(sorted(pids)))


def parse_counter(name: str, text: str) -> dict[str, int]:
    """{file: number}, {file:key: number} of a flat keyed file, {file:key.word: number} of a nested one."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        # io.stat has bare lines too: "11:0" for a device that was never read, "(unknown)" for one that is gone.
        if len(words) == 1 and words[0].isdigit():
            found[name] = int(words[0])
        elif any("=" in word for word in words[1:]):  # 8:0 rbytes=4096 wbytes=0
            pairs = (word.partition("=")[::2] for word in words[1:])
            found.update({f"{name}:{words[0]}.{word}": int(value) for word, value in pairs})
        elif len(words) == 2:
            found[f"{name}:{words[0]}"] = int(words[1])
    return found
