"""Floor 1: the controllers that are only looked at here: hugetlb and misc.

Owns: their readings: huge pages by their size, and the machine's few odd things (misc), such
as keys of encrypted guests.

Read: Documentation/admin-guide/cgroup-v2.rst, "HugeTLB" and "Misc".
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from labkit.kernel.cgroups import forms


class HugePages(NamedTuple):
    """Bytes in pages of one size; `refused` counts faults at the limit."""

    current: int
    max: int | None
    refused: int


class Misc(NamedTuple):
    """A number of one kind of thing."""

    current: int
    max: int | None


def hugetlb(group: Path) -> dict[str, HugePages]:
    """{"2MB": reading, "1GB": ...}; {} where hugetlb is not handed down. Raises LabError."""
    if not group.is_dir():
        raise forms.gone(group, "cannot read hugetlb")
    sizes = sorted(path.name.split(".")[1] for path in group.glob("hugetlb.*.current") if "rsvd" not in path.name)
    return {
        size: HugePages(
            int(forms.read(group, f"hugetlb.{size}.current")),
            forms.amount(forms.read(group, f"hugetlb.{size}.max")),
            forms.flat(forms.read(group, f"hugetlb.{size}.events")).get("max", 0),
        )
        for size in sizes
    }


def misc(group: Path) -> dict[str, Misc]:
    """{name of the thing: reading}; {} on a machine that has none, or hands misc not down. Raises LabError."""
    if group.is_dir() and not forms.has(group, "misc.current"):
        return {}
    now = forms.flat(forms.read(group, "misc.current"))
    most = dict(line.split() for line in forms.read(group, "misc.max").splitlines()) if now else {}
    return {name: Misc(count, forms.amount(most.get(name, "max"))) for name, count in now.items()}
