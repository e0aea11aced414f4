"""Floor 3: ending containers, and giving back what a crash left.

Owns: stop, remove and reset.  A container's monitor gives everything back by itself;
these ask it to, wait for it, and do its work only when it is dead.

Read: docker-stop(1), kill(2).
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from labkit.errors import LabError, Refused
from labkit.kernel import process, removal
from labkit.kernel.ledger import Entry, Ledger, all_ledgers
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
    with contextlib.suppress(OSError):  # `labkit reset` tries again, and says why it cannot
        removal.remove(state.folder(found["id"]))


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


def reset(say: Callable[[str], object] = lambda line: None) -> list[str]:
    """Release every ledger, containers before what they share; say what was given back, and return it.

    Running it twice changes nothing: an empty ledger releases nothing.
    Goes on past what cannot be given back, and raises its LabError at the end.
    """
    given_back: list[str] = []
    failures: list[LabError] = []

    def tell(what: object) -> None:
        given_back.append(f"gave back {what}")
        say(given_back[-1])

    # The common cgroup goes last, and only when it is empty: see release_cgroup_parent.
    ledgers = [ledger for ledger in all_ledgers() if not ledger.owner.startswith("cgroup-")]
    # An id is 64 hexadecimal digits; what containers share is called network-...
    ledgers.sort(key=lambda ledger: len(ledger.owner) != 64)
    for ledger in ledgers:
        for entry in ledger.entries():
            if entry.kind == "process":
                with contextlib.suppress(LabError):  # it stays in the ledger, and is met again below
                    ledger.release(entry)
    for ledger in ledgers:
        for entry in _release(ledger, failures):
            tell(entry)
    from labkit.network import bridge

    with _noting(failures, "cannot forget the networks"):
        bridge.reset()
    with _noting(failures, "cannot give back the common cgroup"), state.locked():
        for entry in container.release_cgroup_parent():
            tell(entry)
    for folder in state.folder().glob("*"):
        # Where something could not be given back it may still be mounted in there.
        if folder.is_dir() and not Ledger(folder.name).entries():
            with _noting(failures, f"cannot remove {folder}"):
                removal.remove(folder)
                tell(f"directory {folder}")
    if failures:
        raise failures[0]
    return given_back


def _release(ledger: Ledger, failures: list[LabError]) -> list[Entry]:
    """Release all of a ledger that can be; what was given back."""
    held = ledger.entries()
    try:
        return ledger.release_all()
    except LabError as error:
        failures.append(error)
        left = ledger.entries()
        return [entry for entry in held if entry not in left]


@contextlib.contextmanager
def _noting(failures: list[LabError], what: str) -> Iterator[None]:
    """Go on after a step that failed, but remember it."""
    try:
        yield
    except LabError as error:
        failures.append(error)
    except OSError as error:
        failures.append(LabError(what, why=str(error)))
