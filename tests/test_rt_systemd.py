"""The systemd driver where no systemd is needed: names of units, and limits as a unit's properties."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.errors import BadInput
from labkit.runtime.groups import systemd


def named(path: str, **more: Any) -> tuple[str, str]:
    """Slice and unit of a cgroupsPath."""
    return systemd.unit({"linux": {"cgroupsPath": path}}, "one", **more)


@pytest.mark.parametrize(
    ("path", "slice_", "unit"),
    [
        ("machine.slice:libpod:abc", "machine.slice", "libpod-abc.scope"),
        ("system.slice:docker:abc", "system.slice", "docker-abc.scope"),
        (":docker:abc", "system.slice", "docker-abc.scope"),
        ("a-b.slice::abc", "a-b.slice", "abc.scope"),
        ("a.slice:x:a-b.slice", "a.slice", "a-b.slice"),
        ("", "system.slice", "labkit-one.scope"),
    ],
)
def test_a_path_names_a_unit(path: str, slice_: str, unit: str) -> None:
    """SLICE:PREFIX:NAME, as runc reads it."""
    assert named(path) == (slice_, unit)


def test_a_users_slice_is_another() -> None:
    """Where none is named."""
    assert named("", rootless=True) == ("user.slice", "labkit-one.scope")


@pytest.mark.parametrize("path", ["/docker/abc", "a:b", "a:b:c", "a.slice:b:", "a.slice:b:c/d", "a.slice:b:c:d"])
def test_other_paths_are_refused(path: str) -> None:
    """By the form that is wanted."""
    with pytest.raises(BadInput, match="SLICE:PREFIX:NAME"):
        named(path)


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ({}, []),
        ({"memory": {"limit": 10, "swap": 30}}, [("MemoryMax", ("t", 10)), ("MemorySwapMax", ("t", 20))]),
        ({"memory": {"limit": -1, "reservation": 5}}, [("MemoryMax", ("t", 2**64 - 1)), ("MemoryLow", ("t", 5))]),
        ({"cpu": {"shares": 1024}}, [("CPUWeight", ("t", 39))]),
        ({"cpu": {"quota": 50000, "period": 100000}},
         [("CPUQuotaPerSecUSec", ("t", 500000)), ("CPUQuotaPeriodUSec", ("t", 100000))]),
        ({"cpu": {"quota": -1}}, [("CPUQuotaPerSecUSec", ("t", 2**64 - 1)), ("CPUQuotaPeriodUSec", ("t", 100000))]),
        ({"cpu": {"cpus": "0-1,8", "mems": "0"}},
         [("AllowedCPUs", ("ay", b"\x03\x01")), ("AllowedMemoryNodes", ("ay", b"\x01"))]),
        ({"pids": {"limit": 7}}, [("TasksMax", ("t", 7))]),
        ({"pids": {"limit": -1}}, [("TasksMax", ("t", 2**64 - 1))]),
        ({"blockIO": {"weight": 10}}, [("IOWeight", ("t", 1))]),
    ],
)  # fmt: skip
def test_limits_are_properties(resources: dict[str, Any], wanted: list[systemd.Property]) -> None:
    """Each in systemd's unit, which is not always the file's."""
    assert systemd.properties(resources) == wanted


def test_annotations_are_properties() -> None:
    """Words, yes and no, and numbers; the rest is refused, and other annotations are not meant."""
    start = "org.systemd.property."
    given = {start + "TimeoutStopUSec": "uint64 5", start + "CollectMode": "'inactive'", start + "X": "true", "a": "b"}
    assert systemd.annotated(given) == [
        ("TimeoutStopUSec", ("t", 5)),
        ("CollectMode", ("s", "inactive")),
        ("X", ("b", True)),
    ]
    for wrong in ("[1]", "'", "nothing", ""):
        with pytest.raises(BadInput, match="cannot be read"):
            systemd.annotated({start + "X": wrong})
