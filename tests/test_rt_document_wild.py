"""config.json as an attacker or a broken program writes it: refused in words, by name, and never a traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from test_rt_document import put
from test_rt_document_schema import FULL

from labkit.errors import BadInput, LabError, NotFound, Refused
from labkit.runtime.document import read, template
from labkit.runtime.files import seal

NEVER = 4294967295


def refused(place: str, value: Any) -> str:
    """The message about a template whose `place` holds `value`."""
    with pytest.raises(BadInput) as caught:
        read.parse(json.dumps(put(template.spec(), place, value)).encode())
    assert caught.value.status == 1
    return str(caught.value)


SETTINGS = ["net/../kernel/core_pattern", "net.ipv4/../../kernel/core_pattern", "net/./x", "net//x", "net..x", "net/",
            "fs.mqueue./x", ".net", "kernel.shm_rmid_forced/../../vm/overcommit_memory"]  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_kernel_setting_has_no_way_out(name: str) -> None:
    """A name with .. would reach settings of the whole machine: refused at reading, and once more at writing."""
    assert "linux.sysctl" in refused("linux.sysctl", {name: "1"})
    with pytest.raises((Refused, LabError)):
        seal.settings({name: "1"})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("process.args", ["sh", "a\0b"]),
        ("process.env", ["A=\0"]),
        ("process.cwd", "/\0"),
        ("process.apparmorProfile", "a\0"),
        ("hostname", "a\0b"),
        ("root.path", "root\0fs"),
        ("mounts", [{"destination": "/x\0", "type": "tmpfs"}]),
        ("mounts", [{"destination": "/x", "type": "tmpfs", "options": ["size=1\0"]}]),
        ("linux.cgroupsPath", "/a\0b"),
        ("linux.maskedPaths", ["/proc\0"]),
        ("linux.sysctl", {"net.x": "\0"}),
        ("linux.resources.unified", {"memory.high\0": "max"}),
        ("annotations", {"a\0": "b"}),
        ("hooks.poststop", [{"path": "/bin/x\0"}]),
    ],
)
def test_a_nul_is_refused(place: str, value: Any) -> None:
    """No call of the kernel takes one; what stands before it would be another text."""
    assert "NUL" in refused(place, value)


@pytest.mark.parametrize("place", ["hostname", "process.cwd", "linux.cgroupsPath", "root.path"])
def test_half_of_a_surrogate_pair_is_refused(place: str) -> None:
    """JSON can write one, and UTF-8 cannot."""
    assert "surrogate" in refused(place, "/\ud800")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("process.user", {"uid": NEVER, "gid": 0}, "user.uid"),
        ("process.user", {"uid": 0, "gid": NEVER}, "user.gid"),
        ("process.user", {"uid": 0, "gid": 0, "additionalGids": [1, NEVER]}, "user.additionalGids"),
        ("process.scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "scheduler.nice"),
        ("process.scheduler", {"policy": "SCHED_OTHER", "nice": -21}, "scheduler.nice"),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "ioPriority.priority"),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": -1}, "ioPriority.priority"),
        ("process.execCPUAffinity", {"initial": "3-1"}, "goes down"),
        ("process.execCPUAffinity", {"final": "1--2"}, "no list"),
        ("linux.devices", [{"path": "/dev/../etc/x", "type": "c", "major": 1, "minor": 3}], "leads upward"),
        ("linux.devices", [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 1 << 16}], "fileMode"),
        ("ociVersion", "01.0.0", "ociVersion"),
        ("ociVersion", "1.0", "ociVersion"),
        ("ociVersion", "1.0.0-", "ociVersion"),
        ("ociVersion", "1.0.0+", "ociVersion"),
        ("ociVersion", "٣.0.0", "ociVersion"),
        ("ociVersion", "2.0.0", "another major version"),
    ],
)
def test_what_is_out_of_range_is_named(place: str, value: Any, said: str) -> None:
    """The message has the field."""
    assert said in refused(place, value)


def test_podmans_whole_mode_is_a_mode() -> None:
    """podman writes st_mode with the kind of the file in it."""
    device = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20666}
    read.check(put(template.spec(), "linux.devices", [device]))


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"ociVersion": ' + b"9" * 5000 + b"}",
        b'{"ociVersion": 1e999}',
        b'{"ociVersion": NaN}',
        b'{"ociVersion": "1.0.0", "process": {"user": {"uid": 1e400}}}',
        b"{} {}",
    ],
)
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    """Not JSON, not UTF-8, too deep, too long a number, no object."""
    with pytest.raises(BadInput):
        read.parse(raw)


def test_the_last_of_two_fields_counts() -> None:
    """As for runc, which is written in Go."""
    text = json.dumps(template.spec())
    assert read.parse((text[:-1] + ', "hostname": "second"}').encode())["hostname"] == "second"


def test_a_file_that_is_none_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO, a folder and a file that is not there, for a bundle and for exec's process."""
    os.mkfifo(tmp_path / "config.json")
    for ask in (lambda: read.load(tmp_path), lambda: read.process(tmp_path / "config.json")):
        with pytest.raises(BadInput, match="no regular file"):
            ask()
    with pytest.raises(BadInput):
        read.process(tmp_path)
    with pytest.raises(NotFound):
        read.process(tmp_path / "none")


def test_a_process_of_its_own_is_checked(tmp_path: Path) -> None:
    """exec --process: the same care as for config.json's."""
    file = tmp_path / "process.json"
    file.write_text(json.dumps({"args": ["x"], "cwd": "/", "user": None}))
    assert read.process(file) == {"args": ["x"], "cwd": "/"}
    for wrong in (
        {"args": [], "cwd": "/"},
        {"args": ["x"], "cwd": "x"},
        {"args": ["x"]},
        {"args": "x", "cwd": "/"},
        [],
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(BadInput, match="process"):
            read.process(file)


PLACES = ["hostname", "root.path", "process.cwd", "process.args", "process.env", "process.user", "mounts",
          "linux.sysctl",
          "linux.devices", "linux.namespaces", "linux.resources", "linux.cgroupsPath", "hooks", "annotations",
          "process.rlimits", "linux.seccomp", "process.scheduler", "linux.timeOffsets"]  # fmt: skip
ANY = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(
            some.sampled_from(["type", "path", "uid", "name", "..", "net.x", "limit"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(some.sampled_from(PLACES), ANY)
def test_a_changed_document_is_good_or_refused(place: str, value: Any) -> None:
    """Whatever stands anywhere: a document, or a LabError with status 1."""
    try:
        read.parse(json.dumps(put(FULL, place, value)).encode())
    except LabError as error:
        assert error.status == 1 and error.what
