"""The systemd driver where no systemd is needed: names of units, and limits as a unit's properties."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rt_ground import child

from labkit.errors import BadInput, Refused
from labkit.kernel import constants as C
from labkit.runtime.groups import dbus, systemd


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


def test_a_slice_is_refused() -> None:
    """At once and in words: no process can be in one itself, and systemd would be waited for in vain."""
    with pytest.raises(BadInput, match="names a slice") as caught:
        named("a.slice:x:a-b.slice")
    assert caught.value.next.startswith("a-b.slice:labkit:")


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
        ({"unified": {"memory.high": "7", "memory.low": "5", "memory.min": "3", "memory.swap.max": "0"}},
         [("MemoryHigh", ("t", 7)), ("MemoryLow", ("t", 5)), ("MemoryMin", ("t", 3)), ("MemorySwapMax", ("t", 0))]),
        ({"memory": {"limit": 10}, "pids": {"limit": 7}, "unified": {"memory.max": "max", "pids.max": "88"}},
         [("MemoryMax", ("t", 2**64 - 1)), ("TasksMax", ("t", 88))]),
        ({"unified": {"cpu.weight": "50", "io.weight": "default 60", "memory.oom.group": "1"}},
         [("CPUWeight", ("t", 50)), ("IOWeight", ("t", 60))]),
        ({"unified": {"cpu.max": "50000", "cpuset.cpus": "0"}, "cpu": {"cpus": "1"}},
         [("AllowedCPUs", ("ay", b"\x01")), ("CPUQuotaPerSecUSec", ("t", 500000)),
          ("CPUQuotaPeriodUSec", ("t", 100000))]),
        ({"unified": {"cpu.max": "max 5000"}},
         [("CPUQuotaPerSecUSec", ("t", 2**64 - 1)), ("CPUQuotaPeriodUSec", ("t", 5000))]),
    ],
)  # fmt: skip
def test_limits_are_properties(resources: dict[str, Any], wanted: list[systemd.Property]) -> None:
    """Each in systemd's unit, which is not always the file's."""
    assert systemd.properties(resources) == wanted


def test_a_files_text_that_is_no_number_is_refused() -> None:
    """The kernel would take 64M, but systemd is told numbers, as by runc."""
    with pytest.raises(BadInput, match=r"memory\.high '64M' is no number"):
        systemd.properties({"unified": {"memory.high": "64M"}})


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


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dbus-daemon"), reason="needs root and dbus-daemon")
def test_a_users_bus_is_asked_from_within_a_user_namespace() -> None:
    """As podman does: root in there, and to the bus still the user who made the namespace."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, 1000, 1000)
    words = ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={folder}/bus", "--print-address=1"]
    with subprocess.Popen(words, user=1000, group=1000, extra_groups=[], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline()
        said = child(lambda: [dbus.outer_uid(), dbus.opened(f"{folder}/bus").unique_name], C.CLONE_NEWUSER, "0 1000 1")
        daemon.kill()
    shutil.rmtree(folder)
    assert said == [1000, ":1.0"]


@pytest.mark.parametrize("answer", [b"REJECTED EXTERNAL\r\n", b""])
def test_a_bus_that_says_no_is_an_error_in_words(tmp_path: Path, answer: bytes) -> None:
    """Refused, with the bus's own words and the driver that does without it."""
    with socket.socket(socket.AF_UNIX) as bus, ThreadPoolExecutor(1) as pool:
        bus.bind(str(tmp_path / "bus"))
        bus.listen()
        asked = pool.submit(dbus.opened, str(tmp_path / "bus"))
        peer, _ = bus.accept()
        with peer:
            peer.recv(1024)
            peer.sendall(answer)
        with pytest.raises(Refused, match="cannot be had here") as caught:
            asked.result(10)
    assert answer.decode().strip() in caught.value.why and "cgroupfs" in caught.value.next
