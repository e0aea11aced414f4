"""Floor 3: the container's cgroup as a unit of systemd's: a transient scope, asked for over D-Bus.

Owns: what linux.cgroupsPath means to this driver (SLICE:PREFIX:NAME), what linux.resources are as properties of a
unit, and the three calls.  On a machine that systemd runs, the tree of cgroups is systemd's: who makes folders in it
by hand has to be given them (Delegate=yes), and limits that systemd does not know of, it takes away when it next
looks.  So both are told: the unit, and then the files.

A scope begins with a process and ends with its last one.  The container's process shall be born inside, so a
stand-in waits there until it is.

Read: systemd.scope(5), systemd.resource-control(5); "Control Group APIs and Delegation" on systemd.io; the D-Bus
interface org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call

from labkit.errors import BadInput, LabError
from labkit.kernel import process
from labkit.kernel.cgroups import forms, tree
from labkit.runtime import cgroup_texts
from labkit.runtime.groups import dbus

if TYPE_CHECKING:
    from jeepney.io.blocking import DBusConnection

MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
UNIT_EXISTS = "org.freedesktop.systemd1.UnitExists"
INFINITY = 2**64 - 1
MICRO = 1_000_000
# A file that linux.resources.unified may name: what systemd calls it, and would write there itself.
UNIFIED = {
    "memory.high": "MemoryHigh",
    "memory.max": "MemoryMax",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
    "io.weight": "IOWeight",
}
Property = tuple[str, tuple[str, Any]]  # name, (D-Bus signature, value)
Resources = dict[str, Any]


def unit(config: dict[str, Any], identifier: str, *, rootless: bool = False) -> tuple[str, str]:
    """The slice, and the unit in it. Raises BadInput for a path of another form."""
    given = config.get("linux", {}).get("cgroupsPath", "") or f":labkit:{identifier}"
    slice_, prefix, name = [*given.split(":"), "", ""][:3]
    slice_ = slice_ or ("user.slice" if rootless else "system.slice")
    if given.count(":") != 2 or not name or "/" in given or not slice_.endswith(".slice"):
        raise BadInput(f"linux.cgroupsPath {given!r} is not SLICE:PREFIX:NAME", status=1,
                       why="with the systemd driver it names a unit, and no folder",
                       next="system.slice:labkit:NAME, or --cgroup-manager cgroupfs")  # fmt: skip
    if name.endswith(".slice"):
        raise BadInput(f"linux.cgroupsPath {given!r} names a slice", status=1,
                       why="a slice holds units and no processes, so no container can be in one itself",
                       next=f"{name}:labkit:NAME, a scope in that slice")  # fmt: skip
    return slice_, f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


def properties(resources: Resources) -> list[Property]:
    """linux.resources as systemd has them. Raises LabError as groups.resources does."""
    memory, cpu, pids, io = (resources.get(part, {}) for part in ("memory", "cpu", "pids", "blockIO"))
    found: dict[str, tuple[str, Any]] = {}

    def number(name: str, value: int) -> None:
        found[name] = ("t", INFINITY if value < 0 else value)

    def quota(value: int, period: int) -> None:
        number("CPUQuotaPerSecUSec", value * MICRO // period if value > 0 else -1)
        number("CPUQuotaPeriodUSec", period)

    if memory.get("limit"):
        number("MemoryMax", memory["limit"])
    if memory.get("reservation"):
        number("MemoryLow", memory["reservation"])
    if memory.get("swap"):
        number("MemorySwapMax", memory["swap"] - memory.get("limit", 0) if memory["swap"] >= 0 else -1)
    if cpu.get("shares"):
        number("CPUWeight", cgroup_texts.weight_of_shares(cpu["shares"]))
    if cpu.get("quota"):
        quota(cpu["quota"], cpu.get("period") or cgroup_texts.PERIOD)
    if pids.get("limit"):
        number("TasksMax", pids["limit"])
    if io.get("weight"):
        number("IOWeight", cgroup_texts.io_weight(io["weight"]))
    unified = resources.get("unified", {})
    for field, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
        if text := unified.get(f"cpuset.{field}") or cpu.get(field):
            found[name] = ("ay", _mask(text))
    # Last, as the file is written last; of the rest systemd has no property, and leaves them alone.
    for file, name in UNIFIED.items():
        if file in unified:
            number(name, _number(file, unified[file].removeprefix("default ")))
    if "cpu.max" in unified:
        text, _, period = unified["cpu.max"].partition(" ")
        quota(_number("cpu.max", text), _number("cpu.max", period or str(cgroup_texts.PERIOD)))
    return list(found.items())


def _number(file: str, text: str) -> int:
    """The number of a file of the cgroup; -1 for max. Raises BadInput: systemd is told numbers."""
    if text.strip() == "max":
        return -1
    if not text.strip().isdecimal():
        raise BadInput(f"linux.resources.unified: {file} {text!r} is no number", status=1,
                       why="with the systemd driver it is a property of a unit too",
                       next="a number, or max")  # fmt: skip
    return int(text)


def _mask(text: str) -> bytes:
    """A list such as 0-2,5 as bits, the lowest number first."""
    total = sum(1 << number for number in forms.numbers(text))
    return total.to_bytes(total.bit_length() // 8 + 1, "little")


def annotated(annotations: dict[str, str]) -> list[Property]:
    """Properties from annotations org.systemd.property.NAME, whose values are GVariant texts. Raises BadInput."""
    found: list[Property] = []
    for key, text in annotations.items():
        name = key.removeprefix("org.systemd.property.")
        if name == key:
            continue
        if text in ("true", "false"):
            found.append((name, ("b", text == "true")))
        elif text[:1] == text[-1:] and text[:1] in ("'", '"') and len(text) > 1:
            found.append((name, ("s", text[1:-1])))
        elif text.removeprefix("uint64 ").isdecimal():
            found.append((name, ("t" if text.startswith("uint64 ") else "i", int(text.removeprefix("uint64 ")))))
        else:
            raise BadInput(f"annotation {key}: {text!r} cannot be read", status=1,
                           why="this runtime understands true, false, 'texts', numbers and uint64 numbers")  # fmt: skip
    return found


class Scope:
    """A new unit, held by a stand-in until `close`."""

    def __init__(self, config: dict[str, Any], identifier: str, *, rootless: bool = False) -> None:
        slice_, self.name = unit(config, identifier, rootless=rootless)
        self.rootless = rootless
        wanted: list[Property] = [
            ("Description", ("s", f"labkit-runtime container {identifier}")),
            ("Slice", ("s", slice_)),
            ("DefaultDependencies", ("b", False)),
            ("MemoryAccounting", ("b", True)),
            ("CPUAccounting", ("b", True)),
            ("IOAccounting", ("b", True)),
            ("TasksAccounting", ("b", True)),
            *annotated(config.get("annotations", {})),
            *properties(config.get("linux", {}).get("resources", {})),
        ]
        self.stand_in = _waiting_process()
        try:
            wanted += [("PIDs", ("au", [self.stand_in])), ("Delegate", ("b", True))]
            with dbus.connected(rootless) as bus:
                _start(bus, self.name, wanted)
            self.group = self._group()
        except BaseException:
            self.close()
            raise

    def _group(self) -> str:
        """The cgroup's folder, once the kernel says that the stand-in is in it."""
        top = tree.top()
        until = time.monotonic() + dbus.PATIENCE
        while time.monotonic() < until:
            with open(f"/proc/{self.stand_in}/cgroup") as file:
                place = next((line[3:].strip() for line in file if line.startswith("0::")), "")
            if place.rsplit("/", 1)[-1] == self.name:
                return top + place
            time.sleep(0.002)
        raise LabError(f"systemd has not started {self.name} for {dbus.PATIENCE:g} s", status=1,
                       next=f"systemctl status {self.name}")  # fmt: skip

    def close(self) -> None:
        """The stand-in goes; if nobody else is in the unit, the unit goes too."""
        if self.stand_in:
            os.kill(self.stand_in, signal.SIGKILL)
            os.waitpid(self.stand_in, 0)
            self.stand_in = 0


def _waiting_process() -> int:
    """A process that does nothing, and ends with this one."""
    pid = os.fork()
    if pid == 0:
        try:
            process.die_with_parent()
            process.set_title("labkit:scope")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    return pid


class SystemdError(LabError):
    """systemd's answer, when it is no."""

    name = ""  # D-Bus's name of the error


def _start(bus: DBusConnection, name: str, wanted: list[Property]) -> None:
    """Make the unit. Raises SystemdError, for one that lives already too."""
    arguments: tuple[Any, ...] = (name, "fail", wanted, [])
    try:
        _call(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", arguments, f"make the unit {name}")
    except SystemdError as error:
        if error.name != UNIT_EXISTS:
            raise
        # Of a container that failed its name alone may be left. That is forgotten; one that lives stays as it is.
        _call(bus, "ResetFailedUnit", "s", (name,), f"forget the unit {name}", fine=(NO_SUCH_UNIT,))
        _call(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", arguments, f"make the unit {name}")


def change(name: str, resources: Resources, *, rootless: bool = False) -> None:
    """Tell systemd the new limits of a unit. Raises LabError."""
    if wanted := properties(resources):
        with dbus.connected(rootless) as bus:
            _call(bus, "SetUnitProperties", "sba(sv)", (name, True, wanted), f"change the unit {name}")


def stop(name: str, *, rootless: bool = False) -> None:
    """End a unit, let systemd forget that it failed, and wait until it has. One that is gone is fine. Raises LabError.

    Until it has, nobody can have the name again: an engine that starts a container anew does so within milliseconds.
    """
    what = f"stop the unit {name}"
    with dbus.connected(rootless) as bus:
        until = time.monotonic() + dbus.PATIENCE
        _call(bus, "StopUnit", "ss", (name, "replace"), what, fine=(NO_SUCH_UNIT,))
        while _call(bus, "GetUnit", "s", (name,), what, fine=(NO_SUCH_UNIT,)):
            if time.monotonic() > until:
                raise LabError(f"systemd has not stopped {name} for {dbus.PATIENCE:g} s", status=1,
                               next=f"systemctl status {name}")  # fmt: skip
            _call(bus, "ResetFailedUnit", "s", (name,), what, fine=(NO_SUCH_UNIT,))
            time.sleep(0.002)


def _call(bus: DBusConnection, method: str, signature: str, arguments: tuple[Any, ...], what: str, *,
          fine: tuple[str, ...] = ()) -> bool:  # fmt: skip
    """Ask; whether systemd did it. Raises SystemdError for an error that is not fine."""
    reply = bus.send_and_get_reply(new_method_call(MANAGER, method, signature, arguments), timeout=dbus.PATIENCE)
    if reply.header.message_type.name != "error":
        return True
    error = DBusErrorResponse(reply)
    if error.name in fine:
        return False
    words = " ".join(map(str, error.data))
    said = SystemdError(f"systemd does not {what}", why=f"{words} ({error.name})", status=1,
                        next="--cgroup-manager cgroupfs does without it")  # fmt: skip
    said.name = error.name
    raise said
