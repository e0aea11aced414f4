"""Where a container's fingerprint under labkit-runtime differs from its peers', and why: the whole list.

A fingerprint is a set of lines; a line that only one runtime has must match a row.  A row that matches nothing
any more is an error too: the list shrinks as the differences do.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pytest import MonkeyPatch

from bench import machine
from labkit.runtime import program

TREE = Path(__file__).resolve().parents[1]
OURS = "labkit"


class Row(NamedTuple):
    """peer: beside whom; pattern: of the whole line, with its sign (- the peer's alone, + ours alone)."""

    peer: str
    pattern: str
    why: str
    only: str = "both"  # or "host", "guest": where it shows; "some" machines have the controller


CGROUPS = r"(cgroup|device programs|mount /sys/fs/cgroup on).*"
HANDED = "the peers hand every controller down, here those that limits and counts need"
OWN = "without a cgroupsPath: here below the runtime's own folder, which goes with the last container"
TABLE = [
    Row(
        "runc",
        r"[-+] mount / on : .*",
        "rootfsPropagation shared: kept here and by crun; by runc where the root was a mount",
    ),
    Row(
        "crun",
        rf"[-+] {CGROUPS}",
        "started without its cgroups here: devices need CAP_SYS_RESOURCE (RLIMIT_MEMLOCK)",
        "host",
    ),
    Row(
        "crun",
        r"- file /dev/core: .*",
        "a link to /proc/kcore, where runc has one only if the machine's /proc has the file",
    ),
    Row("crun", r"[-+] file /dev/null: .*", "crun gives /dev/null to the user"),
    Row("crun", r"[-+] mount /sys on /: .* sysfs \| r[ow]", "crun makes the mount read-only, not sysfs too"),
    Row(
        "crun",
        r"[-+] mount /(proc|sys|usr)/\w+ on /\w+: .*",
        "crun hides folders behind a tmpfs that holds nothing, files behind the machine's /dev/null",
    ),
    Row("crun", r"[-+] mount /dev/\w+ on /dev: .*", "crun binds devices nosuid and noexec in a user namespace"),
    Row("crun", r"[-+] file /(deep|deep/er): .*", "crun makes the folders of a mount's place sticky"),
    Row(
        "crun",
        r"[-+] mount /(b|c|deep/er/and) on /: .*",
        "crun leaves out what unbindable, and nosuid, nodev and shared in a user namespace, want",
    ),
    Row("runc", r"[-+] file /dev/mqueue: .*", "runc makes its IPC namespace before its group is root's in there"),
    Row("crun", r"- cgroup hugetlb.*", HANDED, "guest"),
    Row("runc", r"- cgroup hugetlb.*", HANDED, "some"),
    *(
        Row(peer, r"[-+] cgroup: .*fingerprint-1.*", OWN, where)
        for peer, where in (("crun", "guest"), ("runc", "both"))
    ),
    Row("runc", r"[-+] mount /sys/fs/cgroup on /sys: \S*/fingerprint-1 .*", OWN, "some"),
    Row("crun", r"[-+] mount /sys/fs/cgroup on /sys: .*", "crun calls the source of the mount cgroup2", "guest"),
]


def lines(found: dict[str, Any]) -> set[str]:
    """A fingerprint as lines that can be compared one by one."""
    if "refused" in found:
        return {f"refused: {' '.join(found['refused'].split())}"}
    made = set()
    for key, value in found.items():
        if key == "mounts":
            made |= {f"mount {one[0]} on {one[1]}: {' | '.join(one[2:])}" for one in value}
        elif key == "files":
            made |= {f"file /{name}: {' '.join(map(str, one))}" for name, one in value.items()}
        elif key in ("limits", "settings", "environ"):
            made |= {f"{key}: {' '.join(one.split())}" for one in value}
        else:
            made.add(f"{key}: {json.dumps(value)}")
    return made


def taken(numbers: int, peers: dict[str, str], *, limits: bool) -> dict[int, dict[str, set[str]]]:
    """{number: {runtime: lines}} for the configurations 0 to numbers-1, in a machine within this machine."""
    # On a disk, whose mounts have no options of their own, and open: root in a user namespace is somebody else here.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="fingerprints-") as name, MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)
        program.write(f"{folder}/labkit-runtime", str(TREE))
        runtimes = peers | {OURS: f"{folder}/labkit-runtime"}
        words = ["--folder", name, "--numbers", str(numbers), *(["--limits"] if limits else [])]
        patch.setenv("PYTHONPATH", f"{TREE}:{TREE / 'tests'}")
        status = machine.within("v2", "rt_fingerprint", *words, *(f"{one}={what}" for one, what in runtimes.items()))
        if status:
            raise subprocess.CalledProcessError(status, "rt_fingerprint")
        text = (folder / "fingerprints").read_text()
    found: dict[int, dict[str, set[str]]] = {}
    for line in text.splitlines():
        one = json.loads(line)
        found.setdefault(one["number"], {})[one["runtime"]] = lines(one["found"])
    return found


def unexplained(peer: str, theirs: set[str], ours: set[str]) -> list[str]:
    """The lines that only one has and no row explains."""
    return [line for line in difference(theirs, ours) if not any(explains(row, peer, line) for row in TABLE)]


def difference(theirs: set[str], ours: set[str]) -> list[str]:
    """The peer's lines with -, ours with +; a refusal stands for all else."""
    refused = [f"{sign} {line}" for sign, all_ in (("-", theirs), ("+", ours)) for line in all_ if "refused: " in line]
    return refused or sorted([*(f"- {line}" for line in theirs - ours), *(f"+ {line}" for line in ours - theirs)])


def explains(row: Row, peer: str, line: str) -> bool:
    return row.peer == peer and re.fullmatch(row.pattern, line) is not None


def unused(where: str, peer: str, every: Iterable[tuple[set[str], set[str]]]) -> list[Row]:
    """The rows that explain nothing, though they should where we are."""
    seen = {line for theirs, ours in every for line in difference(theirs, ours)}
    rows = [row for row in TABLE if row.peer == peer and row.only in ("both", where)]
    return [row for row in rows if not any(explains(row, peer, line) for line in seen)]
