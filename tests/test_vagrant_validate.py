"""The Vagrantfile, asked of vagrant itself: every provider's settings exist, ports are ours alone.

Providers whose plugin cannot be had from the distribution are stood in for by
tests/vagrant/stand_ins.rb, which know the plugins' settings; VirtualBox's own
plugin is part of vagrant and only wants to hear a version from VBoxManage.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
PROVIDERS = ["virtualbox", "libvirt", "qemu", "parallels"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Vagrantfile and what it reads, which a test may spoil."""
    assert shutil.which("vagrant"), "vagrant is missing: apt-get install vagrant vagrant-libvirt"
    folder = tmp_path / "project"
    shutil.copytree(TREE / "vagrant", folder / "vagrant")
    shutil.copy(TREE / "Vagrantfile", folder)
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    shutil.copy(TREE / "tests/vagrant/stand_ins.rb", home / "Vagrantfile")
    (home / "bin/VBoxManage").write_text("#!/bin/sh\necho 7.0.20r163906\n")
    (home / "bin/VBoxManage").chmod(0o755)
    return folder


def vagrant(project: Path, provider: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    home = project.parent / "home"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LAB", "VAGRANT"))} | {
        "VAGRANT_HOME": str(home),
        "VAGRANT_DEFAULT_PROVIDER": provider,
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        **extra,
    }
    return subprocess.run(
        ["vagrant", *words], cwd=project, env=environment, text=True, capture_output=True, timeout=120
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_ours_is_accepted_and_a_misspelt_setting_refused(project: Path, provider: str) -> None:
    """`vagrant validate` accepts the provider's block as it is and names the setting that does not exist."""
    accepted = vagrant(project, provider, "validate")
    assert accepted.returncode == 0, accepted.stderr
    assert "already initialized constant" not in accepted.stderr
    text = (project / "Vagrantfile").read_text()
    start = text.index(f'config.vm.provider "{provider}" do')
    spoilt = text[:start] + text[start:].replace("v.memory =", "v.memroy =", 1)
    (project / "Vagrantfile").write_text(spoilt)
    refused = vagrant(project, provider, "validate")
    assert refused.returncode == 1
    assert "settings shouldn't exist: memroy" in refused.stderr


@pytest.mark.parametrize("share", ["lab_copy", "9p"])
def test_each_way_of_sharing_is_valid_for_libvirt(project: Path, share: str) -> None:
    """LAB_SHARE chooses among ways that vagrant accepts."""
    answer = vagrant(project, "libvirt", "validate", LAB_SHARE=share)
    assert answer.returncode == 0, answer.stderr


def test_an_unknown_way_of_sharing_is_refused(project: Path) -> None:
    """A LAB_SHARE that does not exist is an error before anything starts."""
    answer = vagrant(project, "libvirt", "validate", LAB_SHARE="telepathy")
    assert answer.returncode != 0
    assert "telepathy" in answer.stderr


def test_a_taken_port_is_said_before_anything_starts(project: Path) -> None:
    """`vagrant up` names the port that another program holds and how to take another, and starts nothing."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        answer = vagrant(project, "parallels", "up", LAB_PORT=str(port))
    assert answer.returncode != 0
    assert str(port) in answer.stderr and "LAB_PORT=" in answer.stderr


def test_every_forwarded_port_is_on_loopback_only() -> None:
    """JupyterLab is a root shell: no forward of the Vagrantfile listens beyond 127.0.0.1."""
    forwards = [line for line in (TREE / "Vagrantfile").read_text().splitlines() if '"forwarded_port"' in line]
    assert forwards
    assert all(re.search(r'host_ip: "127\.0\.0\.1"', line) for line in forwards)
