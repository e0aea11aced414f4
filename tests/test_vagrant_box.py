"""The box of `make box`: bootable, versioned, and the only place where Vagrant's well-known key is.

Long: it needs the image (minutes, or the cache) and unpacks the box's disk.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from labkit.lab import box_build, image_build

TREE = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.long


def inside(disk: str, path: str) -> str:
    """A file of an ext4 file system, read with debugfs; an empty text if there is none."""
    words = ["/sbin/debugfs", "-R", f"cat {path}", disk]
    return subprocess.run(words, text=True, capture_output=True).stdout


def test_the_box_is_whole_and_the_key_is_only_in_it(tmp_path: Path) -> None:
    """Box: user, key, sudo and a boot sector; image of `make lab`: neither the user nor the key."""
    catalogue = json.loads(box_build.build(TREE, tmp_path, version="1.2.3").read_text())
    assert catalogue["name"] == "labkit/lab"
    (version,) = catalogue["versions"]
    assert version["version"] == "1.2.3"
    box = tmp_path / version["providers"][0]["url"]
    with tarfile.open(box) as archive:
        assert archive.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
    subprocess.run(["tar", "-C", tmp_path, "-xf", box], check=True)
    assert json.loads((tmp_path / "metadata.json").read_text())["provider"] == "libvirt"
    raw = tmp_path / "box.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", tmp_path / "box.img", raw], check=True)
    with raw.open("rb") as disk:
        assert disk.read(512)[510:] == b"\x55\xaa", "no boot sector"
    partition = f"{raw}?offset={1 << 20}"
    assert "vagrant:x:1000:" in inside(partition, "/etc/passwd")
    assert "vagrant insecure public key" in inside(partition, "/home/vagrant/.ssh/authorized_keys")
    assert "NOPASSWD" in inside(partition, "/etc/sudoers.d/vagrant")
    image = str(image_build.build(TREE).disk)
    assert "root:x:0:" in inside(image, "/etc/passwd")
    assert "vagrant" not in inside(image, "/etc/passwd") + inside(image, "/etc/shadow")
    for person in ("root", "home/learner"):
        assert "insecure" not in inside(image, f"/{person}/.ssh/authorized_keys")
    assert inside(image, "/etc/labkit/token") == inside(partition, "/etc/labkit/token") == "", "a token is baked in"
    assert [path.name for path in tmp_path.glob("draft*")] == []
