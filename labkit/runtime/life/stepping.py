"""Floor 3: a container's birth that stops between its steps.

Owns: the gate: after each step somebody is told its name, the system calls that it made, and which fields of
config.json were behind it; and the birth goes on when they say so.  It is the same walk as ever (born.STEPS, and
before it the maker's `cloned` and `mapped`): with nobody at the gate, it does not stop.

The calls are those of labkit.kernel.syscalls; what Python's own os module asks of the kernel beside them, strace shows.

Read: born.py for the steps; strace(1).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NamedTuple

from labkit.kernel import syscalls

# step: the fields of config.json that it obeys.  Two hooks are missing: poststart comes after the birth, and poststop
# after the container's end.
FIELDS = {
    "cloned": ("linux.namespaces", "linux.timeOffsets", "linux.cgroupsPath", "linux.resources"),
    "mapped": ("linux.uidMappings", "linux.gidMappings"),
    "waiting": ("linux.namespaces",),
    "networked": ("linux.namespaces",),
    "labelled": ("process.oomScoreAdj", "process.apparmorProfile", "process.selinuxLabel"),
    "mounted": ("root.path", "mounts", "linux.devices", "linux.rootfsPropagation"),
    "hooked": ("hooks.prestart", "hooks.createRuntime", "hooks.createContainer"),
    "pivoted": ("root.path",),
    "attached": ("process.terminal", "process.consoleSize"),
    "masked": ("hostname", "domainname", "linux.sysctl", "linux.readonlyPaths", "linux.maskedPaths", "root.readonly"),
    "limited": ("process.user.umask", "process.rlimits", "process.scheduler", "process.ioPriority",
                "linux.personality"),
    "dropped": ("process.capabilities", "process.user", "process.cwd", "process.noNewPrivileges"),
    "created": ("hooks.startContainer",),
    "filtered": ("linux.seccomp",),
    "executed": ("process.args", "process.env"),
}  # fmt: skip


class Passed(NamedTuple):
    """One step that has been made."""

    step: str
    pid: int  # of the container's process, as the maker counts
    fields: dict[str, Any]  # those of config.json that are there
    calls: list[str]


class Gate:
    """Where the birth stops; `told` is what people or programs do with a step before it goes on."""

    def __init__(self) -> None:
        self.made: list[syscalls.Call] = []
        self.pid = 0
        self.config: dict[str, Any] = {}

    def open(self, config: dict[str, Any]) -> None:
        """From here on, the maker's own calls are written down."""
        self.config = config
        syscalls.keep(self.made)

    def after(self, step: str, calls: list[str] | None = None) -> None:
        """Tell of a step, with the maker's own calls or the child's, and wait."""
        mine = [str(call) for call in self.made]
        self.made.clear()
        self.told(Passed(step, self.pid, fields(self.config, step), mine if calls is None else calls))
        self.made.clear()

    def told(self, passed: Passed) -> None:
        """Show it, and return when the birth may go on."""
        raise NotImplementedError


class ForPeople(Gate):
    """On standard error, and on with each line of standard input."""

    def told(self, passed: Passed) -> None:
        print(f"\n{passed.step}  (process {passed.pid})", file=sys.stderr)
        for name, value in passed.fields.items():
            print(f"  {name}: {_short(json.dumps(value))}", file=sys.stderr)
        for call in passed.calls:
            print(f"    {_short(call)}", file=sys.stderr)
        print("Enter goes on > ", end="", file=sys.stderr, flush=True)
        sys.stdin.readline()


class ForPrograms(Gate):
    """A line of JSON on a descriptor for each step, and on with each byte that comes back; for labkit.lessons.birth."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        os.set_inheritable(fd, False)

    def told(self, passed: Passed) -> None:
        os.write(self.fd, json.dumps(passed._asdict()).encode() + b"\n")
        os.read(self.fd, 1)


def fields(config: dict[str, Any], step: str) -> dict[str, Any]:
    """{dotted name: value} of what the document says to this step."""
    found = {}
    for name in FIELDS[step]:
        part: Any = config
        for word in name.split("."):
            part = part.get(word) if isinstance(part, dict) else None
        if part not in (None, [], {}, ""):
            found[name] = part
    return found


def _short(text: str, room: int = 160) -> str:
    return text if len(text) <= room else text[: room - 3] + "..."
