"""linux.resources as files of cgroup v2 where no controller is needed: what a field means, and what means nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rt_fingerprint

from labkit.errors import BadInput
from labkit.runtime.groups import cgroupfs, resources


@pytest.mark.parametrize(
    ("wanted", "files"),
    [
        ({"memory": {"limit": 0, "reservation": 0, "swap": 0}}, {}),
        ({"memory": {"limit": 512, "swap": 0}}, {"memory.max": "512"}),
        ({"memory": {"limit": 0, "swap": -1}}, {"memory.swap.max": "max"}),
        ({"memory": {"limit": 512, "swap": 512}}, {"memory.max": "512", "memory.swap.max": "0"}),
        ({"cpu": {"quota": 0, "period": 0, "shares": 0, "cpus": "", "mems": ""}}, {}),
        ({"cpu": {"quota": 5000, "period": 0}}, {"cpu.max": "5000 100000"}),
        ({"cpu": {"quota": 0, "period": 7000}}, {"cpu.max": "max 7000"}),
        ({"cpu": {"idle": 0, "burst": 0}}, {"cpu.max.burst": "0", "cpu.idle": "0"}),
        ({"pids": {"limit": 0}}, {}),
        ({"blockIO": {"weight": 0, "weightDevice": [{"major": 8, "minor": 0, "weight": 0}]}}, {}),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, {"hugetlb.2MB.max": "0", "hugetlb.2MB.rsvd.max": "0"}),
        ({"unified": {"memory.swap.max": "0"}}, {"memory.swap.max": "0"}),
        ({"devices": [{"allow": False, "access": "rwm"}], "network": {"classID": 0, "priorities": []}}, {}),
    ],
)
def test_zero_is_not_set(wanted: dict[str, Any], files: dict[str, str]) -> None:
    """As runc has it: no number and no text is written for 0 and "", but where 0 is a limit of its own."""
    assert resources.files(wanted) == files


@pytest.mark.parametrize("memory", [{"swap": 10}, {"limit": 0, "swap": 10}, {"limit": 20, "swap": 10}])
def test_swap_needs_a_limit_below_it(memory: dict[str, int]) -> None:
    """It counts memory too; a limit of 0 is none."""
    with pytest.raises(BadInput, match=r"at least memory\.limit"):
        resources.files({"memory": memory})


@pytest.mark.parametrize("kernel", [["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"], ["hugetlb.2MB.max"]])
def test_promised_huge_pages_are_limited_too(tmp_path: Path, kernel: list[str]) -> None:
    """Where the kernel counts promises (rsvd), as runc does; an older one has the limit of use alone."""
    for name in kernel:
        (tmp_path / name).touch()
    cgroupfs.apply(str(tmp_path), {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]})
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(kernel, "4194304")
    assert all(rt_fingerprint.LIMITS.fullmatch(name) for name in kernel)
