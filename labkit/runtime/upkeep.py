"""Floor 3: ending containers, and giving back what a crash left.

Owns: stop, remove and reset.  A container's monitor gives everything back by itself;
these ask it to, wait for it, and do its work only when it is dead.

Read: docker-stop(1), kill(2).
"""

from __future__ import annotations

import shutil
import signal
import time
from typing import Any

from labkit.errors import LabError, Refused
from labkit.kernel import process
from labkit.kernel.ledger import Ledger, all_ledgers
from labkit.runtime import container, run, state


def stop(found: dict[str, Any], *, patience: float) -> None:
    """Send the image's stop signal, wait `patience` seconds, then SIGKILL. An ended one is fine."""
    if found["status"] != "running":
        return
    number = getattr(signal.Signals, found.get("stopSignal", "SIGTERM"), signal.SIGTERM)
    for wanted, wait in ((number, patience), (signal.SIGKILL, 10.0)):
        process.kill(found["pid"], found["start"], wanted)
        if _until(lambda: not state.is_running(found), wait):
            break
    else:
        raise LabError(f"container {found['name']} does not end", why=f"process {found['pid']} survives SIGKILL")
    _await_keeper(found)


def remove(found: dict[str, Any], *, force: bool) -> None:
    """Forget an ended container and its writable layer. Raises Refused while it runs, unless forced."""
    if found["status"] == "running":
        if not force:
            raise Refused(
                f"container {found['name']} is running",
                next=f"labkit stop {found['name']}, or labkit rm --force",
                status=1,
            )
        stop(found, patience=0)
    _await_keeper(found)
    run.give_back(Ledger(found["id"]), keep=False)
    if (folder := state.folder(found["id"])).is_dir():
        shutil.rmtree(folder, ignore_errors=True)


def _until(done: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _await_keeper(found: dict[str, Any]) -> None:
    """Let the process that keeps the container finish giving back; two at it would be in each other's way."""
    keeper = found.get("keeper")
    if keeper and found["boot"] == state.boot_id():
        _until(lambda: not process.is_alive(**keeper), 10.0)


def reset() -> list[str]:
    """Release every ledger, containers before what they share; say what was given back.

    Running it twice changes nothing: an empty ledger releases nothing.
    """
    # The common cgroup goes last, and only when it is empty: see release_cgroup_parent.
    ledgers = [ledger for ledger in all_ledgers() if not ledger.owner.startswith("cgroup-")]
    # An id is 64 hexadecimal digits; what containers share is called network-...
    ledgers.sort(key=lambda ledger: len(ledger.owner) != 64)
    for ledger in ledgers:
        for entry in ledger.entries():
            if entry.kind == "process":
                ledger.release(entry)
    given_back = [f"gave back {entry}" for ledger in ledgers for entry in ledger.release_all()]
    from labkit.network import bridge

    bridge.reset()
    with state.locked():
        given_back += [f"gave back {entry}" for entry in container.release_cgroup_parent()]
    for folder in state.folder().glob("*"):
        if folder.is_dir():
            shutil.rmtree(folder)
            given_back.append(f"gave back directory {folder}")
    return given_back
