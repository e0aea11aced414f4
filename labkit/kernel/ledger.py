"""Floor 1: the ledger: what was acquired, written down before it is acquired.

Owns: one file an owner below $LABKIT_RUN/ledger, a line an entry, and one function a
kind of resource that gives it back.  An entry is written first, so that a process that
is killed between the two steps leaves an entry without a resource, never a resource
without an entry.  Giving back is idempotent: what is gone already is fine.

Read: the write-ahead rule of any database; proc_pid_stat(5) for naming a process.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from labkit import paths
from labkit.errors import LabError, explain
from labkit.kernel import cgroups, mounts, process, removal

Fields = dict[str, str | int]


class Entry(NamedTuple):
    """One resource of one owner."""

    number: int
    kind: str
    fields: Fields

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(str(value) for value in self.fields.values())}"


class Ledger:
    """The resources of one owner (whoever acquires under one name)."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.file = folder() / f"{owner}.jsonl"

    def record(self, kind: str, **fields: str | int) -> Entry:
        """Write an entry down, before the resource is acquired. Raises KeyError for an unknown kind."""
        RELEASE[kind]
        numbers = [entry.number for entry in self.entries()]
        entry = Entry(max(numbers, default=0) + 1, kind, dict(fields))
        self._append({"number": entry.number, "kind": kind, "fields": entry.fields})
        return entry

    def forget(self, entry: Entry) -> None:
        """Strike an entry out without touching its resource; the last one removes the file."""
        self._append({"gone": entry.number})
        if not self.entries():
            self.file.unlink(missing_ok=True)

    def release(self, entry: Entry) -> None:
        """Give the resource back and strike it out. Raises LabError when it cannot be given back."""
        try:
            RELEASE[entry.kind](entry.fields)
        except LabError:
            raise
        except OSError as error:
            explain(error, f"cannot give back {entry}")
        except Exception as error:  # an entry of another version, or a fault of ours: the other entries still count
            raise LabError(f"cannot give back {entry}", why=f"{type(error).__name__}: {error}") from error
        self.forget(entry)

    def release_all(self) -> list[Entry]:
        """Give everything back: processes first, oldest first, the rest in reverse order.

        The calling process may stand in its own ledger; it is struck out, not killed.

        Goes on past a resource that cannot be given back, and raises its LabError at the end.
        """
        everything = self.entries()
        entries = [entry for entry in everything if entry.kind == "process"]
        entries += [entry for entry in reversed(everything) if entry.kind != "process"]
        failures: list[LabError] = []
        for entry in entries:
            try:
                self.release(entry)
            except LabError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        self.file.unlink(missing_ok=True)
        return entries

    def entries(self) -> list[Entry]:
        """What this owner holds, oldest first."""
        live: dict[int, Entry] = {}
        try:
            text = self.file.read_text()
        except FileNotFoundError:
            return []
        for line in text.splitlines():
            try:
                note = json.loads(line)
            except ValueError:
                continue  # the writer was killed in the middle of this line, so it acquired nothing
            if "gone" in note:
                live.pop(note["gone"], None)
            else:
                live[note["number"]] = Entry(note["number"], note["kind"], note["fields"])
        return list(live.values())

    def _append(self, note: object) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # A leading line end parts this note from one that a killed writer left half done.
            os.write(fd, b"\n" + json.dumps(note).encode() + b"\n")
        finally:
            os.close(fd)


def folder() -> Path:
    """Where the ledgers lie."""
    return paths.run() / "ledger"


def all_ledgers() -> Iterator[Ledger]:
    """Every owner's ledger, in order of name."""
    for file in sorted(folder().glob("*.jsonl")):
        yield Ledger(file.stem)


# --- giving back, one function a kind ----------------------------------------------------


def _process(fields: Fields) -> None:
    if fields["pid"] != os.getpid():
        process.kill(int(fields["pid"]), int(fields["start"]))


def _mount(fields: Fields) -> None:
    while mounts.is_mounted(str(fields["path"])):
        mounts.unmount(str(fields["path"]), detach=True)


def _cgroup(fields: Fields) -> None:
    cgroups.remove(Path(str(fields["path"])))


def _controllers(fields: Fields) -> None:
    group = Path(str(fields["path"]))
    if group.is_dir():
        cgroups.disable(group, set(str(fields["names"]).split()))


def _link(fields: Fields) -> None:
    from labkit.kernel import rtnetlink

    rtnetlink.delete_link_if_there(str(fields["name"]))


def _nft_table(fields: Fields) -> None:
    import subprocess  # costs 5 ms, and most runs make no table

    done = subprocess.run(
        ["nft", "delete", "table", str(fields["family"]), str(fields["name"])], capture_output=True, text=True
    )
    if done.returncode and "No such file" not in done.stderr:
        raise LabError(f"cannot delete the nft table {fields['name']}", why=done.stderr.strip().partition("\n")[0])


def _iptables(fields: Fields) -> None:
    import subprocess

    program, rule = str(fields["program"]), str(fields["rule"]).split()
    try:
        done = subprocess.run([program, "-w", "-D", str(fields["chain"]), *rule], capture_output=True, text=True)
    except FileNotFoundError:
        return  # without the program there is no way to look; its tables go with the machine
    # Status 1: no such rule, or no such chain; whoever owns the chain may have taken both away.
    if done.returncode > 1:
        raise LabError(f"cannot delete a rule of {program}", why=done.stderr.strip().partition("\n")[0])


def _sysctl(fields: Fields) -> None:
    from labkit.kernel import sysctls

    sysctls.give_back(fields)


def _directory(fields: Fields) -> None:
    path = Path(str(fields["path"]))
    if not any(path.is_relative_to(base) and path != base for base in (paths.data(), paths.run())):
        raise LabError(f"will not remove {path}", why=f"it is outside {paths.data()} and {paths.run()}")
    try:
        removal.remove(path)
    except FileNotFoundError:
        pass  # somebody else removes it too
    except OSError as error:
        raise LabError(f"cannot remove {path}", why=str(error)) from error


def _file(fields: Fields) -> None:
    Path(str(fields["path"])).unlink(missing_ok=True)


def _guardian(fields: Fields) -> None:
    """It ends all that its stage child has started, then itself; killed at once it could not."""
    pid, start = int(fields["pid"]), int(fields["start"])
    process.kill(pid, start, signal.SIGTERM)
    process.kill(pid, start, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while process.is_alive(pid, start) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill(pid, start)


def _command(fields: Fields) -> None:
    """A program of a higher floor gives it back; standard error says why it could not."""
    import subprocess

    done = subprocess.run(json.loads(str(fields["argv"])), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"cannot give back what {fields['role']} holds", why=done.stderr.strip())


RELEASE: dict[str, Callable[[Fields], None]] = {
    "process": _process,
    "forwarder": _process,
    "guardian": _guardian,
    "mount": _mount,
    "cgroup": _cgroup,
    "controllers": _controllers,
    "link": _link,
    "nft_table": _nft_table,
    "iptables": _iptables,
    "sysctl": _sysctl,
    "directory": _directory,
    "file": _file,
    "command": _command,
}
