"""The systemd driver on a machine that systemd runs: the same unit, the same cgroup and files as with runc."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runtime_ground import IMAGE, Machine, until

from labkit.image.store import Store
from labkit.kernel import cgroups
from labkit.runtime import program
from labkit.runtime.document import template

pytest_plugins = ["guest_ground"]
pytestmark = pytest.mark.guest

LIMITS = {
    "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000},
    "pids": {"limit": 33},
}
FILES = ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "pids.max", "cgroup.freeze")
PROPERTIES = ("MemoryMax", "MemorySwapMax", "MemoryLow", "CPUWeight", "CPUQuotaPerSecUSec", "TasksMax", "Delegate",
              "Slice", "DefaultDependencies", "ActiveState")  # fmt: skip


class Ground:
    """A bundle, and both runtimes with the systemd driver."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = template.spec()
        self.config["process"] |= {"terminal": False, "args": ["sleep", "1000"]}
        self.config["ociVersion"] = "1.0.2"  # runc's
        self.config["linux"]["resources"] |= LIMITS
        self.config["linux"]["cgroupsPath"] = f"system.slice:rt{folder.name}:one"
        self.unit = f"rt{folder.name}-one.scope"
        self.commands = {
            "labkit": [str(folder / "labkit-runtime"), "--root", f"{folder}/state"],
            "runc": ["runc", "--root", f"{folder}/runc"],
        }

    def __call__(self, by: str, *words: str, check: bool = True) -> str:
        """What BY --systemd-cgroup WORDS said."""
        (self.folder / "config.json").write_text(json.dumps(self.config))
        with (self.folder / "out").open("w+") as out:
            done = subprocess.run([*self.commands[by], "--systemd-cgroup", *words], cwd=self.folder, stdout=out,
                                  stderr=out, stdin=subprocess.DEVNULL, timeout=120)  # fmt: skip
        said = (self.folder / "out").read_text()
        assert done.returncode == 0 or not check, said
        return said

    def seen(self, pid: int) -> dict[str, str]:
        """The cgroup of a process, its files, and what systemd says of the unit."""
        place = next(
            line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")
        )
        group = Path("/sys/fs/cgroup", place.lstrip("/"))
        found = {"place": place, **{name: (group / name).read_text().strip() for name in FILES}}
        shown = subprocess.run(
            ["systemctl", "show", self.unit, "-p", ",".join(PROPERTIES)], capture_output=True, text=True
        )
        return found | dict(line.split("=", 1) for line in shown.stdout.splitlines())

    def known(self) -> bool:
        """Whether systemd still knows the unit."""
        listed = subprocess.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", self.unit],
                                capture_output=True, text=True)  # fmt: skip
        return self.unit in listed.stdout


@pytest.fixture
def systemd(machine: Machine) -> Iterator[Ground]:
    """A bundle with the kit's busybox; nothing of it is left."""
    folder = Path(f"/var/tmp/{uuid.uuid4().hex[:8]}")
    machine.said("true")  # unpacks the image, if nothing has yet
    (diff_id,) = Store(machine.data / "images").get(IMAGE).config.diff_ids
    shutil.copytree(machine.data / "layers" / diff_id.removeprefix("sha256:"), folder / "rootfs", symlinks=True)
    program.write(str(folder / "labkit-runtime"))
    made = Ground(folder)
    # The slice first: the top cannot take back what a child hands on.
    before = {group: handed(group) for group in (cgroups.root() / "system.slice", cgroups.root())}
    yield made
    for by in made.commands:
        made(by, "delete", "--force", "one", check=False)
    shutil.rmtree(folder)
    # For a unit that is delegated, systemd hands on all that it can, and takes it back when it next looks.
    for group, controllers in before.items():
        cgroups.disable(group, handed(group) - controllers)


def handed(group: Path) -> set[str]:
    """The controllers that a cgroup hands on."""
    return set((group / "cgroup.subtree_control").read_text().split())


def test_the_unit_is_runcs(systemd: Ground) -> None:
    """Place, files and properties are equal, before and after an update; afterwards the unit is gone."""
    found = {}
    for by in systemd.commands:
        systemd(by, "run", "-d", "one")
        pid = json.loads(systemd(by, "state", "one"))["pid"]
        before = systemd.seen(pid)
        systemd(by, "update", "--memory", "48m", "--memory-swap", "80m", "--pids-limit", "22", "one")
        found[by] = (before, systemd.seen(pid))
        systemd(by, "delete", "--force", "one")
        assert not systemd.known(), by
    assert found["labkit"] == found["runc"]
    before, after = found["labkit"]
    assert before["place"] == f"/system.slice/{systemd.unit}" and before["memory.max"] == str(64 << 20)
    assert (after["memory.max"], after["MemoryMax"], after["TasksMax"]) == (str(48 << 20), str(48 << 20), "22")


def test_a_whole_life(systemd: Ground) -> None:
    """create waits in the scope, exec joins it, pause and resume, kill; the stand-in is gone."""
    systemd("labkit", "create", "one")
    systemd("labkit", "start", "one")
    assert systemd("labkit", "exec", "one", "cat", "/proc/self/cgroup").strip() == "0::/"
    processes = json.loads(systemd("labkit", "ps", "--format", "json", "one"))
    assert len(processes) == 1
    systemd("labkit", "pause", "one")
    assert json.loads(systemd("labkit", "state", "one"))["status"] == "paused"
    systemd("labkit", "resume", "one")
    systemd("labkit", "kill", "one", "KILL")
    systemd("labkit", "delete", "--force", "one")
    assert not systemd.known()


def test_a_start_that_fails_leaves_no_unit(systemd: Ground) -> None:
    """A program that is not there: 127 in words, and systemd knows nothing any more."""
    systemd.config["process"]["args"] = ["/no/such"]
    for _ in range(3):  # systemd takes the empty scope away while we do
        assert "no such file or directory" in systemd("labkit", "run", "one", check=False)
        assert not systemd.known()


def test_another_form_of_path_is_refused(systemd: Ground) -> None:
    """A folder's path is the other driver's."""
    systemd.config["linux"]["cgroupsPath"] = "/a/b"
    assert "is not SLICE:PREFIX:NAME" in systemd("labkit", "run", "one", check=False)


def test_a_unit_of_somebody_else_is_left_alone(systemd: Ground) -> None:
    """A name that is taken is an error, as with runc, and who has it lives on."""
    with transient(systemd.unit) as other:
        for by in systemd.commands:
            said = systemd(by, "run", "-d", "one", check=False)
            assert ("cgroup is not empty" if by == "runc" else systemd.unit) in said, said
            assert other.poll() is None and systemd.known(), by


def test_a_name_is_free_again_when_delete_returns(systemd: Ground) -> None:
    """An engine starts a container anew within milliseconds, under the same name."""
    for _ in range(5):
        systemd("labkit", "run", "-d", "one")
        systemd("labkit", "delete", "--force", "one")


def test_a_failed_unit_keeps_no_name(systemd: Ground) -> None:
    """What a scope that failed leaves with systemd, a new container of that name replaces, as with runc."""
    for by in systemd.commands:
        with transient(systemd.unit, "-p", "RuntimeMaxSec=1") as other:
            other.wait(60)
        until(lambda: "failed" in shown(systemd.unit))
        systemd(by, "run", "-d", "one")
        systemd(by, "delete", "--force", "one")
        assert not systemd.known(), by


@contextmanager
def transient(unit: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A scope of this name that is none of a runtime's."""
    words = ["systemd-run", "--quiet", "--scope", f"--unit={unit}", *options, "sleep", "1000"]
    with subprocess.Popen(words, text=True) as process:
        try:
            until(lambda: "=active" in shown(unit))
            yield process
        finally:
            process.kill()
            process.wait()


def shown(unit: str) -> str:
    """Whether it is active, as systemd has it."""
    return subprocess.run(["systemctl", "show", unit, "-p", "ActiveState"], capture_output=True, text=True).stdout
