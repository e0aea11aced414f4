"""Top floor: `labkit xray`: the kernel behind a process or a command, in a terminal.

Owns: the command's options, and what it prints: a snapshot as text, what a command changed,
or, with --watch, each change as it comes.

Read: labkit/observe/scope.py for what belongs to a process; lsns(8), pstree(1), findmnt(8).
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable

from labkit.draw import changes, mounttree, network, processes
from labkit.errors import NotFound
from labkit.lessons.xray import Xray
from labkit.observe import difference, snapshot
from labkit.observe.model import Snapshot
from labkit.observe.snapshot import Scope, Visitor


def xray(argv: list[str]) -> int:
    """labkit xray [PID | --all] [--watch [--seconds N] [--interval N]] [--json] | labkit xray -- COMMAND..."""
    words, dashes, command = _split(argv)
    parser = argparse.ArgumentParser(
        prog="labkit xray",
        description="show what the kernel holds for what labkit made (default), for one process tree, or for all; "
        "or what a command changed: labkit xray -- COMMAND",
    )
    parser.add_argument("pid", nargs="?", type=int, help="this process and its descendants, and what only they hold")
    parser.add_argument("-a", "--all", action="store_true", help="everything that can be seen")
    parser.add_argument("-w", "--watch", action="store_true", help="print each change as it comes, until Ctrl-C")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between two looks (1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop watching after so long")
    parser.add_argument("--json", action="store_true", help="the snapshot as JSON")
    given = parser.parse_args(words)
    if dashes:
        if not command or given.pid or given.all or given.watch:
            parser.error("behind -- stands one command, and before it nothing")
        return around(command)
    scope: Scope = None if given.all else snapshot.Tree(given.pid) if given.pid else snapshot.Made()
    if given.watch:
        return watch(lambda visitor: look(scope, visitor), given.interval, given.seconds)
    with Visitor() as visitor:
        seen = look(scope, visitor)
    if given.json:
        print(snapshot.to_json(seen))
    else:
        print(text(seen))
    return 0


def _split(argv: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in argv:
        return argv, False, []
    at = argv.index("--")
    return argv[:at], True, argv[at + 1 :]


def look(scope: Scope, visitor: Visitor) -> Snapshot:
    """A snapshot; raises NotFound when the one process that was asked for is gone."""
    seen = snapshot.take(scope, visitor=visitor)
    if isinstance(scope, snapshot.Tree) and scope.pid not in seen.processes:
        raise NotFound(f"there is no process {scope.pid}", next="labkit ps shows the containers' pids")
    return seen


def text(seen: Snapshot) -> str:
    """The pictures' text twins, one below the other."""
    parts = [("processes and their namespaces", processes.matrix(seen).text), ("the tree", processes.tree(seen).text)]
    parts += [
        (f"mounts of mnt:[{inode}]", mounttree.tree(mounts).text) for inode, mounts in sorted(seen.mounts.items())
    ]
    if seen.networks:
        parts.append(("network", network.wiring(seen).text))
    if not seen.processes and len(parts) == 2:
        return "nothing: labkit holds no process, mount or link"
    return "\n\n".join(f"{title}\n{body}" for title, body in parts)


def watch(look: Callable[[Visitor], Snapshot], interval: float, seconds: float | None) -> int:
    """Print what changes from one look to the next; 0 at the time's end or at Ctrl-C."""
    began = time.monotonic()
    with Visitor() as visitor:
        before = look(visitor)
        print(f"watching {difference.count(len(before.processes), 'process')}; Ctrl-C ends it", flush=True)
        try:
            while seconds is None or time.monotonic() - began < seconds:
                time.sleep(interval)
                try:
                    after = look(visitor)
                except NotFound as error:
                    print(error.what)
                    return 0
                for one in difference.compare(before, after):
                    print(
                        f"{time.monotonic() - began:7.1f} s  {one.sign} {one.kind} {one.name}  {one.detail}", flush=True
                    )
                before = after
        except KeyboardInterrupt:
            print()
    return 0


def around(command: list[str]) -> int:
    """Run the command, show what it changed and left, and end with its status."""
    with Xray() as ray:
        try:
            status = subprocess.run(command).returncode
        except FileNotFoundError as error:
            raise NotFound(f"there is no program {command[0]!r}", status=127) from error
    print(changes.changes(ray.seen.changes, ray.seen.calls).text)
    if ray.seen.unseen:
        print(ray.seen.unseen)
    return status if status >= 0 else 128 - status
