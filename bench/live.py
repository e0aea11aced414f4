"""`python -m bench.live`: what a live view of one container costs, in percent of one core.

The view draws the process tree and its namespaces five times a second for ten seconds; the
processor time of this process and of the reader's helper is compared with the wall clock.
"""

from __future__ import annotations

import os
import time

from labkit.draw import processes
from labkit.lessons import Child
from labkit.lessons.live import watch
from labkit.observe import snapshot

RATE, SECONDS = 5.0, 10.0  # pictures a second; how long
AIM = 3.0  # percent of one core


def spent(pid: int) -> float:
    """Processor seconds of a process, from fields 14 and 15 of /proc/PID/stat."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def leave() -> None:
    from labkit.kernel import namespaces

    namespaces.leave(["mnt", "uts", "ipc", "pid", "net"])


def main() -> None:
    with Child("box") as box, snapshot.Visitor() as visitor:
        box.do(leave)
        box.spawn("sh", "-c", "sleep 1000 & sleep 1000 & wait")
        scope = snapshot.Tree(box.pid)
        view = watch(lambda: processes.tree(snapshot.take(scope, visitor=visitor)), rate=RATE, seconds=SECONDS)
        mine, others, began = time.process_time(), spent(visitor.pid), time.monotonic()
        view.start()
        view._thread.join()
        wall = time.monotonic() - began
        share = (time.process_time() - mine + spent(visitor.pid) - others) / wall
    print(f"live view of one container: {view.ticks} pictures in {wall:.1f} s, {100 * share:.2f} % of one core")
    print(f"{view.ended}\n")
    print(f"aim: a live view at {RATE:g} Hz under {AIM:g} % of one core: {'met' if 100 * share < AIM else 'MISSED'}")


if __name__ == "__main__":
    main()
