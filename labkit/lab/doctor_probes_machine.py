"""Top floor: probes of the machine as a whole: kernel, memory, disk, swap.

Owns: whether the kit's tables fit this kernel, and whether there is room to work.

Read: uname(2), proc_meminfo(5), proc_swaps(5), statvfs(3).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lab import doctor_probes_text as text
from labkit.lab.doctor_probes import Probe, Seen, why
from labkit.lab.doctor_probes_leftovers import ground

MEMORY = 1024  # MiB of the machine; the kernel keeps some of it for itself, hence:
KERNEL_KEEPS = 0.88
AVAILABLE = 256  # MiB for one notebook and one container
DISK = 2000  # MB


def kernel() -> dict[str, Seen]:
    """A call by number from the kit's own tables: the process's pid, which /proc knows too."""
    system = os.uname()
    name = f"{system.sysname} {system.release} on {system.machine}"
    try:
        same = call("gettid") == int(os.readlink("/proc/thread-self").rpartition("/")[2])
    except OSError as error:
        return {"kernel": Seen("missing", f"{name}: {error.strerror or why(error)}")}
    known = ", ".join(C.ARCHITECTURES)
    seen = Seen("ok", name) if same else Seen("missing", f"{name}: not the system calls of {known}")
    return {"kernel": seen}


def memory() -> dict[str, Seen]:
    """MemTotal and MemAvailable."""
    found = text.meminfo(Path("/proc/meminfo").read_text())
    total, available = found["MemTotal"], found["MemAvailable"]
    enough = total >= MEMORY * KERNEL_KEEPS and available >= AVAILABLE
    return {"memory": Seen("ok" if enough else "limited", f"{total} MiB, {available} MiB of it available")}


def disk() -> dict[str, Seen]:
    """Free space where the kit keeps images and layers."""
    place = ground()
    free = shutil.disk_usage(place).free // 1_000_000
    return {"disk": Seen("ok" if free >= DISK else "limited", f"{free} MB free at {place}")}


def swap() -> dict[str, Seen]:
    """Whether memory that a container may not have can go to a disk instead."""
    size = text.swap(Path("/proc/swaps").read_text())
    return {"swap": Seen("limited", f"{size} MiB of swap") if size else Seen("ok", "none, which is right for the lab")}


PROBES = {
    "kernel": Probe(("kernel",), kernel),
    "memory": Probe(("memory",), memory),
    "disk": Probe(("disk",), disk),
    "swap": Probe(("swap",), swap),
}
