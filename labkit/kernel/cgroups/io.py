"""Floor 1: the io controller: bytes and operations a second of each block device.

Owns: its limits and readings by device, "8:0" or a path; weight and latency where this
kernel has them.

    io.limit(group, "/dev/vda", rbps=1 << 20, wbps=1 << 20)
    io.stat(group)["254:0"].read

Read: Documentation/admin-guide/cgroup-v2.rst, "IO".
"""

from __future__ import annotations

import os
import re
import stat as modes
from pathlib import Path
from typing import NamedTuple

from labkit.errors import BadInput, NotFound, Refused
from labkit.kernel.cgroups import forms, tree
from labkit.kernel.cgroups.keep import KEEP, Kept

RATES = ("rbps", "wbps", "riops", "wiops")  # fields of io.max
MICRO = 1_000_000


class Limits(NamedTuple):
    """Bytes and operations a second, read and written; None is no limit."""

    rbps: int | None = None
    wbps: int | None = None
    riops: int | None = None
    wiops: int | None = None


class Stat(NamedTuple):
    """Bytes and operations so far."""

    read: int = 0
    written: int = 0
    reads: int = 0
    writes: int = 0
    discarded: int = 0
    discards: int = 0


class Weights(NamedTuple):
    """1 to 10000 (io.weight) or 1 to 1000 (io.bfq.weight); 100 is the default."""

    file: str
    default: int
    devices: dict[str, int]


def device(path: Path | str) -> str:
    """ "MAJOR:MINOR" of a block device, or of the whole disk below a file's file system.

    Limits belong to whole disks; a partition's number becomes its disk's.  "8:0" stays itself.
    Raises NotFound, BadInput.
    """
    text = os.fspath(path)
    if re.fullmatch(r"[0-9]+:[0-9]+", text):
        return text
    try:
        info = os.stat(text)
    except OSError as error:
        raise NotFound(f"there is no block device {text}", why=error.strerror or "", next="lsblk lists them") from error
    number = info.st_rdev if modes.S_ISBLK(info.st_mode) else info.st_dev
    if modes.S_ISCHR(info.st_mode):
        raise BadInput(f"{text} is no block device", why="it is a character device", next="lsblk lists them")
    name = f"{os.major(number)}:{os.minor(number)}"
    place = Path("/sys/dev/block", name)
    if not place.exists():
        raise BadInput(f"{text} lies on no block device", why="its file system has none, such as tmpfs and overlay",
                       next="lsblk lists them")  # fmt: skip
    if (place / "partition").exists():
        name = (place.resolve().parent / "dev").read_text().strip()
    return name


def limit(
    group: Path,
    where: Path | str,
    *,
    rbps: int | Kept | None = KEEP,
    wbps: int | Kept | None = KEEP,
    riops: int | Kept | None = KEEP,
    wiops: int | Kept | None = KEEP,
) -> None:
    """Set what is mentioned for one device; None takes a limit away. Raises LabError."""
    wanted = zip(RATES, (rbps, wbps, riops, wiops), strict=True)
    words = [f"{name}={forms.word(value)}" for name, value in wanted if value is not KEEP]
    if words:
        tree.limit(group, {"io.max": f"{device(where)} {' '.join(words)}"})


def limits(group: Path) -> dict[str, Limits]:
    """{"8:0": limits} of the devices that have any. Raises LabError."""
    found = forms.nested(forms.read(group, "io.max"))
    return {name: Limits(*(forms.amount(one.get(rate, "max")) for rate in RATES)) for name, one in found.items()}


def stat(group: Path) -> dict[str, Stat]:
    """{"8:0": what was moved} of the devices that were used. Raises LabError."""
    names = ("rbytes", "wbytes", "rios", "wios", "dbytes", "dios")
    found = forms.nested(forms.read(group, "io.stat"))
    return {name: Stat(*(int(one.get(key, 0)) for key in names)) for name, one in found.items()}


def total(group: Path) -> Stat:
    """The sum over all devices. Raises LabError."""
    return Stat(*(sum(column) for column in zip(Stat(), *stat(group).values(), strict=True)))


def weight_file(group: Path) -> str:
    """Which file holds weights here. Raises Refused when this kernel divides no disk by weight.

    io.bfq.weight works where a disk has the scheduler bfq; io.weight where iocost is switched on for the
    disk (io.cost.qos in the root).  Neither by itself changes anything.
    """
    for name in ("io.bfq.weight", "io.weight"):
        if forms.has(group, name):
            return name
    if not group.is_dir():
        raise forms.gone(group, "cannot set a weight")
    raise Refused(
        f"{group} has no weight for disks",
        why="neither io.bfq.weight (the scheduler bfq) nor io.weight (CONFIG_BLK_CGROUP_IOCOST) is there",
        next="modprobe bfq, and hand io down: +io in the cgroup.subtree_control above",
    )


def weight(group: Path, default: int, devices: dict[str, int] | None = None) -> None:
    """Set the weight for all devices, and other ones for some. Raises LabError."""
    file = weight_file(group)
    tree.limit(group, {file: f"default {default}" if file == "io.weight" else str(default)})
    for where, number in (devices or {}).items():
        tree.limit(group, {file: f"{device(where)} {number}"})


def weights(group: Path) -> Weights:
    """What is set now. Raises LabError."""
    file = weight_file(group)
    lines = [line.split() for line in forms.read(group, file).splitlines()]
    return Weights(
        file,
        next((int(words[1]) for words in lines if words[0] == "default"), 100),
        {words[0]: int(words[1]) for words in lines if ":" in words[0]},
    )


def latency(group: Path, where: Path | str, target: float | None) -> None:
    """Ask that a request takes at most `target` seconds; others' queues are cut when it does not. None: no target.

    Raises Refused where the kernel has no io.latency (CONFIG_BLK_CGROUP_IOLATENCY), LabError.
    """
    if group.is_dir() and not forms.has(group, "io.latency"):
        raise Refused(
            f"{group} has no io.latency",
            why="this kernel was built without CONFIG_BLK_CGROUP_IOLATENCY, or io is not handed down to the cgroup",
        )
    word = "0" if target is None else str(round(target * MICRO))
    tree.limit(group, {"io.latency": f"{device(where)} target={word}"})
