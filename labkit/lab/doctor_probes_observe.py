"""Top floor: probes of observation: pressure, perf events, type information, tracefs.

Owns: making each of them count something, since a file that is there may stay at zero.

Read: Documentation/accounting/psi.rst, perf_event_open(2), Documentation/bpf/btf.rst,
Documentation/trace/ftrace.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel import mounts
from labkit.kernel.syscalls import call
from labkit.lab import doctor_probes_text as text
from labkit.lab.doctor_probes import Probe, Seen, why
from labkit.lab.doctor_probes_namespaces import AS_ROOT, fence

# include/uapi/linux/perf_event.h
HARDWARE, SOFTWARE = 0, 1
CPU_CYCLES, TASK_CLOCK = 0, 1
ATTR_SIZE = 64  # PERF_ATTR_SIZE_VER0: all that is asked for here
EXCLUDE_KERNEL = 1 << 5
PERF_FLAG_FD_CLOEXEC = 8
BTF_MAGIC = b"\x9f\xeb"
SHARING = 0.05  # seconds in which two programs want one processor


def pressure() -> dict[str, Seen]:
    """Every file readable, and the processor's total rising while two programs share one."""
    folder = Path("/proc/pressure")
    try:
        for name in ("cpu", "memory", "io"):
            text.pressure_total((folder / name).read_text())
    except FileNotFoundError:
        return {"psi": Seen("missing", "there is no /proc/pressure")}
    except OSError as error:
        return {"psi": Seen("missing", f"/proc/pressure cannot be read: {why(error)}",
                            "boot with psi=1 on the kernel's command line")}  # fmt: skip
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before = text.pressure_total((folder / "cpu").read_text())
    other = os.fork()
    end = time.monotonic() + SHARING
    while time.monotonic() < end:
        pass
    if other == 0:
        os._exit(0)
    os.waitpid(other, 0)
    rose = text.pressure_total((folder / "cpu").read_text()) > before
    if rose:
        return {"psi": Seen("ok", "cpu, memory and io are readable, and counting")}
    return {"psi": Seen("limited", "readable, but not counting")}


def perf() -> dict[str, Seen]:
    """A software event that every kernel can count; then the processor's own cycles."""
    return {"perf": _count(SOFTWARE, TASK_CLOCK, "software"), "perf.hardware": _count(HARDWARE, CPU_CYCLES, "hardware")}


def _count(kind: int, config: int, word: str) -> Seen:
    attr = struct.pack("=IIQQQQQ", kind, ATTR_SIZE, config, 0, 0, 0, EXCLUDE_KERNEL).ljust(ATTR_SIZE, b"\0")
    try:
        fd = call("perf_event_open", ctypes.create_string_buffer(attr), 0, -1, -1, PERF_FLAG_FD_CLOEXEC)
    except OSError as error:
        return _perf_refused(error)
    for _ in range(20000):
        pass
    counted = int.from_bytes(os.read(fd, 8), "little")
    os.close(fd)
    names = {"software": "task-clock", "hardware": "cycles"}
    return Seen("ok", f"{names[word]} counts") if counted else Seen("missing", f"{names[word]} stays at 0")


def _perf_refused(error: OSError) -> Seen:
    if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENXIO, errno.ENODEV):
        return Seen("missing", "this processor shows no counters", "a machine that is not virtual, or has a vPMU")
    paranoid = Path("/proc/sys/kernel/perf_event_paranoid")
    if error.errno in (errno.EACCES, errno.EPERM) and paranoid.exists():
        level = paranoid.read_text().strip()
        return Seen("limited", f"not for uid {os.geteuid()}: kernel.perf_event_paranoid = {level}", AS_ROOT)
    return Seen("missing", why(error))


def btf() -> dict[str, Seen]:
    """The kernel's types, which programs for eBPF are fitted to."""
    file = Path("/sys/kernel/btf/vmlinux")
    try:
        with file.open("rb") as stream:
            magic = stream.read(2)
    except OSError as error:
        return {"btf": Seen("missing", f"{file}: {why(error)}")}
    good = magic in (BTF_MAGIC, BTF_MAGIC[::-1])
    return {"btf": Seen("ok", f"{file} is readable") if good else Seen("missing", f"{file} is no BTF")}


def tracefs() -> dict[str, Seen]:
    """Mounted once more in private, with the event that says what is executed."""
    if os.geteuid() != 0:
        return {"tracefs": Seen("limited", f"not tried: it is root's, this is uid {os.geteuid()}", AS_ROOT)}
    try:
        fence("mnt")
        place = next(path for path in (Path("/mnt"), Path("/srv"), Path("/tmp")) if path.is_dir())
        mounts.mount("tracefs", place, "tracefs")
        event = place / "events/sched/sched_process_exec/id"
        there = event.exists() and int(event.read_text()) > 0
    except (OSError, LabError) as error:
        return {"tracefs": Seen("missing", why(error))}
    if there:
        return {"tracefs": Seen("ok", "mounted one in private, it has sched_process_exec")}
    return {"tracefs": Seen("limited", "mounted one in private, but it has no events")}


PROBES = {
    "psi": Probe(("psi",), pressure),
    "perf": Probe(("perf", "perf.hardware"), perf),
    "tracefs": Probe(("tracefs",), tracefs),
    "btf": Probe(("btf",), btf),
}
