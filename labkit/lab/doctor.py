"""Top floor: the doctor: what this machine can do, what is missing, what that costs a learner.

Owns: the table of findings, with what the lack of each costs, its usual remedy and whether
the lab can do without it; and the verdict.  What is seen comes from labkit.lab.doctor_probes,
which tries each thing for real in a process of its own.

Read: labkit/lab/doctor_probes.py, systemd-detect-virt(1).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError
from labkit.kernel import namespaces
from labkit.lab import doctor_probes_text as text

GROUPS = ("machine", "namespaces", "cgroups", "files", "network", "security", "observation", "tools")
STATES = ("ok", "limited", "missing")
NOTEBOOKS = {
    2: "images",
    3: "copy-on-write layers",
    4: "namespaces",
    5: "cgroups",
    6: "networking",
    7: "storage",
    8: "security",
    9: "observability",
    10: "Docker by hand",
    11: "your own Docker",
}
IN_LAB = Path("/opt/labkit/venv")  # provisioning puts it into the lab's machine, and nowhere else
LAB = "make lab, which brings a machine that has it"
LAB_AGAIN = "on the host: make lab FRESH=1, which brings this machine as it should be"


class Finding(NamedTuple):
    """One line of the doctor's: state is one of STATES; cost and remedy are empty when it is ok."""

    key: str
    group: str
    title: str
    state: str
    found: str
    cost: str
    remedy: str


class Check(NamedTuple):
    """What is known of a finding before it is looked for."""

    group: str
    title: str
    notebooks: tuple[int, ...]
    cost: str
    remedy: str = ""  # empty: a machine that has it
    essential: bool = False


def _checks() -> dict[str, Check]:
    no_limit = "no limit of {} can be set"
    rows: dict[str, Check] = {
        "kernel": Check("machine", "kernel", (4, 10), "the kit's system calls are unknown here"),
        "memory": Check("machine", "memory", (5, 11), "programs may be killed for want of memory",
                        "close other programs; for the lab's machine: make lab MEMORY=2048"),
        "disk": Check("machine", "disk", (2, 3, 7), "images and layers may not fit",
                      "free some, or LABKIT_DATA=FOLDER on another disk"),
        "swap": Check("machine", "swap", (5,), "a container over its memory limit may swap and not be killed",
                      "swapoff -a"),
    }  # fmt: skip
    for kind in namespaces.KINDS.values():
        rows[f"ns.{kind.name}"] = Check("namespaces", kind.name, (4, 10), f"{kind.isolates} cannot be isolated",
                                        essential=kind.name != "time")  # fmt: skip
    rows["userns"] = Check("namespaces", "for ordinary users", (4, 8), "no rootless container")
    rows["cgroup2"] = Check("cgroups", "version 2", (5,), "no limit can be set", essential=True)
    for name, what, needed in (
        ("cpuset", "the processors used", False),
        ("cpu", "processor time", True),
        ("io", "reading and writing", False),
        ("memory", "memory", True),
        ("hugetlb", "huge pages", False),
        ("pids", "processes", True),
    ):
        books = (5, 10) if needed else (5,)
        rows[f"cgroup.{name}"] = Check("cgroups", name, books, no_limit.format(what), essential=needed)
    install = "apt-get install {}".format
    rows |= {
        "delegation": Check("cgroups", "delegation", (5, 8), "a rootless container has no limits"),
        "overlay": Check("files", "overlayfs", (3, 7, 10), "layers cannot be stacked", essential=True),
        "overlay.userns": Check("files", "the same, rootless", (3, 8), "a rootless container copies its layers"),
        "veth": Check("network", "veth", (6,), "no container reaches the network", essential=True),
        "bridge": Check("network", "bridge", (6,), "containers do not reach each other", essential=True),
        "nftables": Check("network", "nftables", (6,), "no published port and no way out", essential=True),
        "seccomp": Check("security", "seccomp", (8, 10), "no system call can be forbidden"),
        "landlock": Check("security", "Landlock", (8,), "no program can lock itself out of files"),
        "apparmor": Check("security", "AppArmor", (8,), "no profile can confine a container"),
        "psi": Check("observation", "pressure (PSI)", (5, 9), "what waits for what cannot be seen"),
        "perf": Check("observation", "perf, software", (9,), "nothing can be counted by perf events"),
        "perf.hardware": Check("observation", "perf, hardware", (9,), "cycles and cache misses cannot be counted"),
        "btf": Check("observation", "kernel types (BTF)", (9,), "no portable eBPF program"),
        "tracefs": Check("observation", "tracefs", (9,), "the kernel's events cannot be followed"),
        "tool.crane": Check("tools", "crane", (2, 3), "no image can be fetched", "sh vagrant/install-crane.sh", True),
        "tool.runc": Check("tools", "runc", (10,), "our runtime has no other to compare with", install("runc")),
        "tool.docker": Check("tools", "docker client", (1, 11), "docker cannot drive our engine",
                             install("docker-cli")),
        "tool.nft": Check("tools", "nft", (6,), "no published port and no way out", install("nftables")),
        "tool.nsenter": Check("tools", "nsenter", (4,), "no namespace can be entered by hand", install("util-linux")),
        "tool.strace": Check("tools", "strace", (1, 4, 9), "system calls cannot be watched", install("strace")),
    }  # fmt: skip
    return rows


NOTEBOOKS[1] = "from docker run to the kernel"
CHECKS = _checks()
ESSENTIAL = tuple(key for key, check in CHECKS.items() if check.essential)


def examine(timeout: float = 600) -> list[Finding]:
    """Try everything on this machine, in processes that are thrown away; every group in order.

    Safe to call from a threaded process: nothing happens in it.  Raises LabError when the
    probes as a whole give no answer in `timeout` seconds.
    """
    words = [sys.executable, "-P", "-m", "labkit.lab.doctor_probes"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, start_new_session=True)
        seen = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        said = done.stderr.strip()[-300:] if isinstance(error, ValueError) else ""
        raise LabError("the doctor's probes gave no answer", why=said or str(error)) from error
    return findings(seen, in_lab=IN_LAB.is_dir())


def findings(seen: Mapping[str, list[str]], *, in_lab: bool) -> list[Finding]:
    """What the probes saw (key: state, found, remedy), with what it costs and what to do."""
    usual = LAB_AGAIN if in_lab else LAB
    found = []
    for key, check in CHECKS.items():
        state, words, remedy = seen.get(key, ["missing", "nobody looked", ""])
        cost = "" if state == "ok" else f"{_books(check.notebooks)}: {check.cost}"
        found.append(Finding(key, check.group, check.title, state, words, cost,
                             "" if state == "ok" else remedy or check.remedy or usual))  # fmt: skip
    return found


def _books(numbers: tuple[int, ...]) -> str:
    names = ", ".join(f"{number:02} ({NOTEBOOKS[number]})" for number in numbers)
    return f"notebook{'s' if len(numbers) > 1 else ''} {names}"


def lacking(found: list[Finding]) -> list[Finding]:
    """What `make lab WHERE=here` cannot do without, and this machine does not give in full."""
    return [finding for finding in found if finding.key in ESSENTIAL and finding.state != "ok"]


def machine() -> dict[str, str]:
    """Architecture, kernel, distribution and, where systemd can tell, the virtualization."""
    system = os.uname()
    release = Path("/etc/os-release")
    known = {
        "architecture": system.machine,
        "kernel": system.release,
        "distribution": text.distribution(release.read_text() if release.exists() else ""),
    }
    try:
        done = subprocess.run(["systemd-detect-virt"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return known
    return known | {"virtualization": done.stdout.strip()} if done.stdout.strip() else known
