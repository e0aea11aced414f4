"""What was written in a machine that no longer answers: it is copied from its disk, or the machine stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.lab import keepsakes, lab_command, preflight, state
from labkit.lab.state import Machine

ADMIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = {name: shutil.which(name, path=ADMIN) for name in ("qemu-img", "e2fsck", "debugfs", "mke2fs")}
pytestmark = pytest.mark.skipif(None in PROGRAMS.values(), reason="needs qemu-utils and e2fsprogs")
LARGE = 3_000_000


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on record whose process is gone: an image, and a real disk above it, with homes on it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("LAB_NAME", raising=False)
    monkeypatch.setattr(state, "TREE", tmp_path / "checkout")
    state.TREE.mkdir()
    state.folder().mkdir(parents=True)
    image = tmp_path / "image"
    image.mkdir()
    (image / "root.img").write_bytes(b"")
    os.utime(image / "root.img", (1, 1))
    machine = Machine(2**22 + 1, 1, 2, 1, 3, "token", str(image), "learner", "tcg", "a test", 512, time.time())
    disk(tmp_path, {"root/mine.txt": b"mine\n", "root/large": os.urandom(LARGE), "home/learner/l.txt": b"l\n"})
    state.save(machine)
    return machine


def disk(folder: Path, files: dict[str, bytes]) -> None:
    """Make the machine's disk, an ext4 in qcow2, with these files."""
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    raw = folder / "made.raw"
    with raw.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run([str(PROGRAMS["mke2fs"]), "-q", "-t", "ext4", "-d", tree, raw], check=True)
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, state.folder() / "overlay.qcow2"]
    subprocess.run(words, check=True)


def kept() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (state.TREE / keepsakes.FOLDER).rglob("*") if path.is_file()}


def only(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Let the copy find these programs, and no others."""
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(preflight, "ADMIN", str(folder))


def real(name: str) -> str:
    return f'#!/bin/sh\nexec {PROGRAMS[name]} "$@"\n'


def stays(match: str) -> str:
    """`labkit lab down` refuses with these words, and the machine's record and disk are as they were; the error."""
    with pytest.raises(LabError, match=match) as caught:
        lab_command.down()
    assert state.load() is not None and (state.folder() / "overlay.qcow2").exists()
    assert not (state.folder() / "disk.raw").exists()
    return str(caught.value)


def test_the_homes_are_copied_from_the_disk(dead: Machine) -> None:
    """With nothing in the way, all files are in the checkout and the machine is forgotten."""
    assert lab_command.down() == 0
    found = kept()
    assert (found["mine.txt"], found["l.txt"], len(found["large"])) == (b"mine\n", b"l\n", LARGE)
    assert not state.folder().exists()


@pytest.mark.parametrize("lacking", ["qemu-img", "e2fsck", "debugfs"])
def test_without_a_program_the_machine_stays(
    dead: Machine, lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is not on the host is named with its package, and nothing is removed."""
    others = {name: real(name) for name in keepsakes.PACKAGES if name != lacking}
    only(tmp_path / "bin", monkeypatch, **others)
    assert f"apt-get install {keepsakes.PACKAGES[lacking]}" in stays(f"there is no {lacking} here")


def test_without_room_for_the_disk_the_machine_stays(
    dead: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """qemu-img that cannot write all of disk.raw (here: a file of at most 64 KiB) ends the copy, not the machine."""
    small = f'#!/bin/bash\ntrap "" XFSZ\nulimit -f 64\nexec {PROGRAMS["qemu-img"]} "$@"\n'
    only(tmp_path / "bin", monkeypatch, **{"qemu-img": small})
    assert str(state.folder()) in stays("qemu-img ended with 1: .*File too large")


def test_without_room_for_the_files_the_machine_stays(
    dead: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """debugfs ends with 0 when it could write only a part of a file; its words count."""
    small = f'#!/bin/bash\ntrap "" XFSZ\nulimit -f 1024\nexec {PROGRAMS["debugfs"]} "$@"\n'
    others = {name: real(name) for name in ("qemu-img", "e2fsck")}
    only(tmp_path / "bin", monkeypatch, debugfs=small, **others)
    stays("debugfs on /root: .*File too large")


def test_a_disk_that_is_none_stays(dead: Machine) -> None:
    """Bytes that no longer are a disk are said to be so, and are not thrown away."""
    (state.folder() / "overlay.qcow2").write_bytes(b"no disk")
    stays("qemu-img ended with 1")


def test_a_checkout_that_takes_no_folder_stays(dead: Machine) -> None:
    """Where the copy cannot be put into the checkout, the machine and its disk are as they were."""
    (state.TREE / keepsakes.FOLDER).write_text("in the way")
    assert str(state.TREE) in stays("cannot copy what was written")


def test_a_home_that_was_removed_is_no_error(dead: Machine, tmp_path: Path) -> None:
    """Who removed a home has nothing in it to lose: the other one is kept."""
    disk(tmp_path, {"root/mine.txt": b"mine\n"})
    assert lab_command.down() == 0
    assert kept() == {"mine.txt": b"mine\n"}


def test_what_cannot_be_read_goes_when_told_so(dead: Machine) -> None:
    """--discard ends the machine without a copy."""
    (state.folder() / "overlay.qcow2").write_bytes(b"no disk")
    assert lab_command.main(["down", "--discard"]) == 0
    assert not state.folder().exists() and not kept()
