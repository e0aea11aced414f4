"""labkit-runtime as an ordinary user: the machine's `learner`, whose containers are beside runc's."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_ground import IMAGE, Machine

from labkit.image.store import Store
from labkit.runtime import program
from labkit.runtime.document import template

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest

USER = "learner"
LOOK = "id -u; id -g; cat /proc/self/uid_map; cat /proc/self/setgroups; hostname; touch /made; stat -c %u /made"


class Rootless:
    """A bundle of the user's, and the two runtimes as that user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = template.spec(rootless=True)
        self.config["process"] |= {"terminal": False, "args": ["sh", "-c", LOOK]}
        self.config["root"]["readonly"] = False
        self.config["ociVersion"] = "1.0.2"  # runc's
        owner = pwd.getpwnam(USER)  # the template has the numbers of who writes it
        for field, number in (("uidMappings", owner.pw_uid), ("gidMappings", owner.pw_gid)):
            self.config["linux"][field] = [{"containerID": 0, "hostID": number, "size": 1}]
        # runc has no cgroup namespace of its own accord, and labkit's is of no use without a cgroup.
        spaces = [one for one in self.config["linux"]["namespaces"] if one["type"] != "cgroup"]
        self.config["linux"]["namespaces"] = spaces
        self.config["mounts"] = [one for one in self.config["mounts"] if one["destination"] != "/sys/fs/cgroup"]

    def __call__(self, runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
        """RUNTIME WORDS as the user, in the bundle."""
        (self.folder / "config.json").write_text(json.dumps(self.config))
        environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self.folder / "run")}
        command = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", runtime, *words]
        # Into files: a pipe would stay open as long as the container that has it for its output.
        with (self.folder / "out").open("w+") as out, (self.folder / "err").open("w+") as err:
            done = subprocess.run(command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                                  stderr=err, text=True, timeout=120)  # fmt: skip
        done.stdout, done.stderr = (self.folder / "out").read_text(), (self.folder / "err").read_text()
        return done


@pytest.fixture
def bundle(machine: Machine) -> Iterator[Rootless]:
    """A bundle with the kit's busybox; nothing of it is left."""
    folder = Path(f"/var/tmp/rl-{uuid.uuid4().hex[:8]}")
    machine.said("true")  # unpacks the image, if nothing has yet
    (diff_id,) = Store(machine.data / "images").get(IMAGE).config.diff_ids
    layer = machine.data / "layers" / diff_id.removeprefix("sha256:")
    shutil.copytree(layer, folder / "rootfs", symlinks=True)
    (folder / "run").mkdir()
    program.write(str(folder / "labkit-runtime"))
    owner = pwd.getpwnam(USER)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    yield Rootless(folder)
    shutil.rmtree(folder)


def both(bundle: Rootless) -> list[str]:
    """What the program printed under labkit-runtime, which is what it prints under runc."""
    ours = bundle(str(bundle.folder / "labkit-runtime"), "run", "ours")
    (bundle.folder / "rootfs/made").unlink(missing_ok=True)
    theirs = bundle("runc", "--root", str(bundle.folder / "run/runc"), "run", "theirs")
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), ours.stderr + theirs.stderr
    assert ours.returncode == 0
    return ours.stdout.splitlines()


def test_one_number_is_root_inside(bundle: Rootless) -> None:
    """The user is root in there, and nobody else is anybody."""
    owner = pwd.getpwnam(USER)
    lines = both(bundle)
    assert lines[:3] == ["0", "0", f"{0:>10} {owner.pw_uid:>10} {1:>10}"] and lines[3] == "deny"


def test_subordinate_numbers_are_mapped(bundle: Rootless) -> None:
    """With newuidmap a second user is there too, and may be become."""
    owner = pwd.getpwnam(USER)
    first = next(int(line.split(":")[1]) for line in Path("/etc/subuid").read_text().split() if line.startswith(USER))
    lines = [{"containerID": 0, "hostID": owner.pw_uid, "size": 1}, {"containerID": 1, "hostID": first, "size": 1000}]
    bundle.config["linux"] |= {"uidMappings": lines, "gidMappings": lines}
    found = both(bundle)
    assert found[2:4] == [f"{0:>10} {owner.pw_uid:>10} {1:>10}", f"{1:>10} {first:>10} {1000:>10}"]
    bundle.config["process"]["user"] = {"uid": 5, "gid": 6}
    bundle.config["process"]["args"] = ["sh", "-c", "id -u; id -g"]
    assert both(bundle) == ["5", "6"]


def test_a_whole_life_without_a_cgroup(bundle: Rootless) -> None:
    """create, start, exec, ps, kill and delete; pause says why not; a limit that nobody may set is refused."""
    ours = str(bundle.folder / "labkit-runtime")
    bundle.config["process"]["args"] = ["sleep", "1000"]
    # Where learner's session had a delegated cgroup, pause would work: here it is started from root's.
    assert bundle(ours, "create", "one").returncode == 0
    assert bundle(ours, "start", "one").returncode == 0
    assert bundle(ours, "exec", "one", "id", "-u").stdout == "0\n"
    assert len(json.loads(bundle(ours, "ps", "--format", "json", "one").stdout)) == 1
    assert "has no cgroup" in bundle(ours, "pause", "one").stderr
    assert bundle(ours, "kill", "one", "KILL").returncode == 0
    assert bundle(ours, "delete", "--force", "one").returncode == 0
    assert bundle(ours, "list", "-q").stdout == ""
    bundle.config["linux"]["resources"] = {"pids": {"limit": 5}}
    done = bundle(ours, "run", "two")
    assert done.returncode != 0 and "cgroup" in done.stderr
    assert bundle(ours, "list", "-q").stdout == ""
