"""The arm64 image, built here and booted once in an emulated aarch64 machine.

Long: on two cores under emulation the image takes about half an hour to build, which
the cache of images remembers, and a minute or more to boot.  LAB_ARM64_IMAGE names the
folder of an image to boot as it is (the tree comes live, so the code is today's);
LAB_ARM64_LOG is a file for what the machine's console says.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.lab.image_build import Image

TREE = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.long

BUILD = """
from pathlib import Path
from labkit.lab import image_build
print(image_build.build(Path({tree!r}), arch="arm64", say=lambda text: None).folder)
"""
# No ssh and no key: the machine runs one command at its boot and powers itself off.
COMMAND = "/bin/sh -c 'systemctl start lab-tree lab-registry; sh /lab/tests/arm64/proof.sh > /dev/ttyAMA0 2>&1'"


def built() -> Image:
    """The image, from the cache or made now with QEMU's user-mode emulator."""
    if "LAB_ARM64_IMAGE" in os.environ:
        return Image(Path(os.environ["LAB_ARM64_IMAGE"]))
    words = [sys.executable, "-m", "labkit.lab.foreign", "aarch64", sys.executable, "-c", BUILD.format(tree=str(TREE))]
    done = subprocess.run(words, cwd=TREE, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Image(Path(done.stdout.strip().splitlines()[-1]))


def boot(image: Image, folder: Path) -> str:
    """Boot the image on a throw-away overlay; return what the console said (a minute or more)."""
    overlay = folder / "overlay.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(overlay)]
    subprocess.run(create, check=True)
    append = f'root=LABEL=root rw console=ttyAMA0 net.ifnames=0 loglevel=4 systemd.run="{COMMAND}"'
    append += " systemd.run_success_action=poweroff systemd.run_failure_action=poweroff"
    words = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-accel", "tcg,thread=multi"]
    words += ["-smp", "2", "-m", "2048", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", append]
    words += ["-drive", f"file={overlay},if=virtio,cache=unsafe"]
    words += ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile="]
    words += ["-virtfs", f"local,path={TREE},mount_tag=lab,security_model=none,readonly=on"]
    words += ["-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=3000)
    text = done.stdout.decode(errors="replace").replace("\r", "")
    if "LAB_ARM64_LOG" in os.environ:
        Path(os.environ["LAB_ARM64_LOG"]).write_text(text + done.stderr.decode(errors="replace"))
    return text


def test_the_arm64_image_boots_and_runs_a_container(tmp_path: Path) -> None:
    """In an aarch64 machine the doctor finds nothing missing that labkit needs, and `labkit run` runs."""
    for tool, package in (("qemu-system-aarch64", "qemu-system-arm"), ("qemu-aarch64-static", "qemu-user-static"),
                          ("arch-test", "arch-test"), ("mmdebstrap", "mmdebstrap")):  # fmt: skip
        assert shutil.which(tool), f"{tool} is missing: apt-get install {package}"
    said = boot(built(), tmp_path)
    assert re.search(r"=== Linux .* aarch64", said), said[-3000:]
    assert "=== doctor ended with 0" in said
    assert re.search(r"^aarch64$", said, re.MULTILINE)
    assert "=== run ended with 0" in said
    assert re.search(r"^pid \d+ on \w+$", said, re.MULTILINE)
    assert "=== second run ended with 7" in said
    assert "=== end" in said
