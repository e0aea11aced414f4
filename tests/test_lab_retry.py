"""A machine that ends by itself while it boots is started once more, and then given up in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from labkit.lab import accelerator

STAND_IN = """#!/bin/sh
case "$*" in *--version*) exit 0 ;; *fw_cfg*) echo start >> {log} ;; esac
echo 'the end came early' >&2
exit 1
"""


def test_a_machine_that_ends_at_once_is_started_twice(tmp_path: Path) -> None:
    """A program that ends stands for QEMU: two starts, the reason each time, and nothing is left."""
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text(STAND_IN.format(log=tmp_path / "log"))
    qemu.chmod(0o755)
    environment = {**os.environ, "LAB_NAME": "retry", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["up", "--variant", "test", "--arch", "amd64", "--port", "0", "--publish-port", "0"]
    done = subprocess.run([sys.executable, "-m", "labkit", "lab", *words], env=environment, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 125
    assert (tmp_path / "log").read_text() == "start\n" * 2
    assert done.stdout.count("is started once more") == 1 and "the end came early" in done.stdout
    assert "ended while it started" in done.stderr and "the end came early" in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "labkit", "lab", "down"], env=environment, capture_output=True, text=True
    )
    assert "no lab of this checkout is running" in again.stdout


def test_a_kvm_whose_machine_ended_is_not_taken_again(tmp_path: Path) -> None:
    """The next start takes tcg, and knows why."""
    memory = tmp_path / "memory"
    memory.write_text(json.dumps({"key": "k", "name": "kvm", "why": "a small boot"}))
    answer = accelerator.doubted(accelerator.Accelerator("kvm", "a small boot"), memory)
    assert answer.name == "tcg" and "kvm" in answer.why
    assert json.loads(memory.read_text()) == {"key": "k", "name": "tcg", "why": answer.why}


def test_tcg_is_doubted_by_nobody(tmp_path: Path) -> None:
    """There is nothing slower to go to."""
    chosen = accelerator.Accelerator("tcg", "x")
    assert accelerator.doubted(chosen, tmp_path / "none") == chosen
