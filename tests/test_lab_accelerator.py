"""The choice of the accelerator, where no image is needed: programs that stand for QEMU."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from labkit.lab import accelerator


def stand_in(folder: Path, script: str) -> str:
    """A program that is started as QEMU would be."""
    path = folder / "qemu"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo version 1 && exit\necho x >> {folder}/runs\n{script}\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    return tmp_path / "vmlinuz"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that opens, whatever this host has."""
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "kvm")
    return tmp_path / "kvm"


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines()) if (folder / "runs").exists() else 0


def test_a_boot_that_hangs_is_ended_at_the_limit(tmp_path: Path, kernel: Path) -> None:
    """tcg after the limit, with the first line that was said; and the hanging program is gone."""
    qemu = stand_in(tmp_path, "echo KVM internal error; exec sleep 54321")
    began = time.monotonic()
    answer = accelerator.prove(kernel, qemu=qemu, limit=1.0)
    assert 1.0 <= time.monotonic() - began < 4.0
    assert answer.name == "tcg" and "did not come up in 1 s (KVM internal error)" in answer.why
    assert subprocess.run(["pgrep", "-fx", "sleep 54321"]).returncode == 1


def test_a_boot_that_chatters_for_ever_is_ended_too(tmp_path: Path, kernel: Path) -> None:
    """Output is no proof: the limit holds for a kernel that prints and prints."""
    qemu = stand_in(tmp_path, "while :; do echo tick; sleep 0.05; done")
    began = time.monotonic()
    assert accelerator.prove(kernel, qemu=qemu, limit=1.0).name == "tcg"
    assert time.monotonic() - began < 4.0


def test_a_boot_that_comes_up_is_the_proof(tmp_path: Path, kernel: Path) -> None:
    """The kernel's last words before its disk: kvm, at once."""
    qemu = stand_in(tmp_path, f"echo '{accelerator.PROOF.decode()}'; exec sleep 99")
    answer = accelerator.prove(kernel, qemu=qemu, limit=20)
    assert answer.name == "kvm" and "ran under it" in answer.why


def test_a_qemu_that_refuses_is_quoted(tmp_path: Path, kernel: Path) -> None:
    """It ends by itself before the limit: tcg, with its own words."""
    qemu = stand_in(tmp_path, "echo 'could not access KVM kernel module' >&2; exit 1")
    answer = accelerator.prove(kernel, qemu=qemu, limit=20)
    assert answer.name == "tcg" and "could not access KVM kernel module" in answer.why


def test_without_the_device_nothing_is_tried(tmp_path: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No /dev/kvm: tcg, and the reason a person can act on."""
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "none")
    answer = accelerator.choose(kernel, tmp_path / "memory", qemu=stand_in(tmp_path, "exit 1"))
    assert answer.name == "tcg" and "firmware" in answer.why
    assert runs(tmp_path) == 0


def test_the_answer_is_remembered(tmp_path: Path, kernel: Path, device: Path) -> None:
    """One boot for two questions; the same answer."""
    qemu = stand_in(tmp_path, f"echo '{accelerator.PROOF.decode()}'")
    first = accelerator.choose(kernel, tmp_path / "deep" / "memory", qemu=qemu)
    assert accelerator.choose(kernel, tmp_path / "deep" / "memory", qemu=qemu) == first
    assert first.name == "kvm" and runs(tmp_path) == 1


def test_another_kernel_is_proved_again(tmp_path: Path, kernel: Path, device: Path) -> None:
    """The answer is about one kernel."""
    qemu = stand_in(tmp_path, "exit 1")
    accelerator.choose(kernel, tmp_path / "memory", qemu=qemu)
    kernel.write_bytes(b"a newer kernel")
    accelerator.choose(kernel, tmp_path / "memory", qemu=qemu)
    assert runs(tmp_path) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"key": "x"})])
def test_a_damaged_memory_is_no_answer(text: str, tmp_path: Path, kernel: Path, device: Path) -> None:
    """What cannot be read is proved again, and mended."""
    (tmp_path / "memory").write_text(text)
    assert accelerator.choose(kernel, tmp_path / "memory", qemu=stand_in(tmp_path, "exit 1")).name == "tcg"
    assert json.loads((tmp_path / "memory").read_text())["name"] == "tcg"
    assert runs(tmp_path) == 1
    assert os.access(device, os.R_OK)
