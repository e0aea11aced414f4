"""`vagrant up` for real: an ordinary user, libvirt's session, the box of `make box`; nothing is lost.

Long (three starts of a machine for each way of sharing; about 25 minutes under software
emulation).  As root the test makes an ordinary user for the purpose and removes it.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.lab import box_build

TREE = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def person() -> Iterator[pwd.struct_passwd]:
    """An ordinary user: this one, or one made for the test."""
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid())
        return
    name = f"labtest{os.getpid()}"
    subprocess.run(["useradd", "--create-home", name], check=True)
    yield pwd.getpwnam(name)
    # libvirt's session service outlives its last client by two minutes; nobody else is this user.
    for pid in subprocess.run(["ps", "-o", "pid=", "-u", name], capture_output=True, text=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    time.sleep(1)
    subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The box, built as `make box` builds it."""
    folder = tmp_path_factory.mktemp("box")
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    return box_build.build(TREE, folder)


class Checkout:
    """A person's copy of this tree, and vagrant in it."""

    def __init__(self, person: pwd.struct_passwd, share: str) -> None:
        self.person = person
        self.path = Path(person.pw_dir) / f"lab-{share}"
        self.port, self.publish, self.ssh = free_port(), free_port(), free_port()
        self.environment = {
            **{"HOME": person.pw_dir, "USER": person.pw_name, "LOGNAME": person.pw_name, "LANG": "C.UTF-8"},
            **{"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "VAGRANT_CHECKPOINT_DISABLE": "1"},
            **{"LAB_BOX": box_build.NAME, "LAB_SHARE": share},
            **{"LAB_LIBVIRT_SESSION": "1", "LAB_LIBVIRT_DRIVER": os.environ.get("LAB_LIBVIRT_DRIVER", "qemu")},
            **{"LAB_PORT": str(self.port), "LAB_PUBLISH_PORT": str(self.publish), "LAB_SSH_PORT": str(self.ssh)},
        }
        listed = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=TREE, capture_output=True, text=True, check=True
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (TREE / name).is_file():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TREE / name, self.path / name)
        (self.path / "notebooks").mkdir(exist_ok=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{person.pw_uid}:{person.pw_gid}", self.path], check=True)

    def run(self, *words: str) -> str:
        who = ["runuser", "-u", self.person.pw_name, "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*who, *words], cwd=self.path, env=self.environment, text=True, capture_output=True, timeout=1800
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def inside(self, script: str) -> str:
        return self.run("vagrant", "ssh", "-c", f"sudo sh -c {shlex.quote(script)}")


def free_port() -> int:
    """The first of ten free ports."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1]) // 10 * 10


@pytest.mark.parametrize("share", ["9p", "lab_copy"])
def test_edit_reload_rebuild_lose_nothing(person: pwd.struct_passwd, catalogue: Path, share: str) -> None:
    """What root wrote in the machine is in the checkout, its owner's, after reload, destroy and a fresh machine."""
    checkout = Checkout(person, share)
    try:
        checkout.run("sh", "-c", f"cd {catalogue.parent} && vagrant box add --force {catalogue.name}")
        said = checkout.run("vagrant", "up", "--provider=libvirt")
        assert f"http://127.0.0.1:{checkout.port}/lab?token=" in said
        with urllib.request.urlopen(f"http://127.0.0.1:{checkout.port}/api", timeout=60) as answer:
            assert b"version" in answer.read()
        checkout.inside("cd /lab/notebooks && echo first > mine.txt && mkdir -p sub && echo deep > sub/deep.txt")
        checkout.run("vagrant", "reload")
        mine = checkout.path / "notebooks" / "mine.txt"
        assert mine.read_text() == "first\n"
        assert mine.stat().st_uid == person.pw_uid
        assert checkout.inside("cat /lab/notebooks/mine.txt") == "first\n"
        checkout.inside("echo second > /lab/notebooks/mine.txt")
        checkout.run("vagrant", "destroy", "-f")
        assert mine.read_text() == "second\n"
        checkout.run("vagrant", "up", "--provider=libvirt")
        assert checkout.inside("cat /lab/notebooks/mine.txt /lab/notebooks/sub/deep.txt") == "second\ndeep\n"
    finally:
        checkout.run("vagrant", "destroy", "-f")
    left = checkout.run("virsh", "-c", "qemu:///session", "list", "--all", "--name").strip()
    assert left == "", "a machine is left"
    for port in (checkout.port, checkout.publish, checkout.ssh):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on {port}"
