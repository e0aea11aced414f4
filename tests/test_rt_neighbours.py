"""What a container and its runtime may not do to others: their cgroups, their mounts, their secrets."""

from __future__ import annotations

import os
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from rt_ground import SLEEP, Ground, ground, until

from labkit.kernel import cgroups

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]


@pytest.fixture
def runtime() -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    with ground() as made:
        yield made


@pytest.fixture
def group() -> Iterator[str]:
    """A name at the top of the tree of cgroups; what is left of it goes."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    cgroups.remove(cgroups.root() / name)


@pytest.mark.parametrize("below", ["", "/one"])
def test_a_cgroup_that_others_are_in_is_left_as_it_is(runtime: Ground, group: str, below: str) -> None:
    """A second container with the path of a living one, or with one above it: refused, and the first lives on."""
    runtime.process(*SLEEP)
    runtime.config["linux"]["cgroupsPath"] = f"/{group}{below}"
    runtime("run", "--detach", "one", check=True)
    runtime.config["linux"]["cgroupsPath"] = f"/{group}"
    done = runtime("create", "two")
    assert done.returncode == 1 and "is in use" in done.stderr
    time.sleep(0.2)
    assert runtime.left() == ["one"] and runtime.state("one")["status"] == "running"


def test_the_tops_cgroup_is_nobodys(runtime: Ground) -> None:
    """A cgroupsPath of / is a mistake in the document."""
    runtime.config["linux"]["cgroupsPath"] = "/"
    done = runtime("create", "one")
    assert done.returncode == 1 and "tree's top" in done.stderr and runtime.left() == []


def test_nobody_else_can_read_what_a_container_was_given(runtime: Ground) -> None:
    """In config.json stand passwords: the folders and files are their owner's; the engine's pid file is not hidden."""
    runtime.process(*SLEEP)
    runtime("create", "--pid-file", f"{runtime.folder}/pid", "one", check=True)
    kept = [runtime.folder / "state", *(runtime.folder / "state").rglob("*")]
    open_to_others = [path.name for path in kept if path.lstat().st_mode & 0o077 and not path.is_fifo()]
    assert len(kept) > 3 and open_to_others == []
    assert stat.S_IMODE((runtime.folder / "pid").stat().st_mode) == 0o644


def test_what_is_mounted_in_a_bind_stays_in_the_container(runtime: Ground) -> None:
    """A shared folder of the machine, shown in a container with a user namespace: no mount gets out through it."""
    source = runtime.folder / "shared"
    (source / "below").mkdir(parents=True)
    runtime.kinds("pid", "ipc", "uts", "mount", "user", "network")
    one = [{"containerID": 0, "hostID": 0, "size": 65536}]
    runtime.config["linux"] |= {"uidMappings": one, "gidMappings": one}
    entry = {"destination": "/b", "type": "bind", "source": str(source), "options": ["rbind"]}
    runtime.config["mounts"].append(entry)
    everything = ["CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
    powers = dict.fromkeys(("bounding", "effective", "permitted"), everything)
    runtime.process("/usr/bin/sh", "-c", "mount -t tmpfs inner /b/below && touch /b/below/in; sleep 1000",
                    capabilities=powers)  # fmt: skip
    runtime.write()
    program = " ".join(runtime.words("run", "--detach", "one"))
    script = (f"mount --bind {source} {source} && mount --make-shared {source} && "
              f"{program} </dev/null >/dev/null 2>err && "
              f"for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; done; findmnt -n -o TARGET,FSTYPE -R {source}")  # fmt: skip
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script], cwd=runtime.folder,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert runtime.left() == ["one"], (runtime.folder / "err").read_text()
    pid = runtime.state("one")["pid"]
    assert Path(f"/proc/{pid}/root/b/below/in").exists(), "the container could not mount"
    assert done.stdout.split()[0] == str(source) and "tmpfs" not in done.stdout, done.stdout + done.stderr


def test_the_runtimes_hooks_see_the_mounts_and_the_machine(runtime: Ground) -> None:
    """prestart and createRuntime run after the mounts and before the pivot, as config.md has it."""
    script = (
        'pid=$(sed -E "s/.*\\"pid\\": ?([0-9]+).*/\\1/"); cp /proc/$pid/mountinfo mounts-$0; ls -d /proc/$pid/root/tmp'
    )
    environment = ["PATH=/usr/bin:/bin"]
    hooks = {
        kind: [{"path": "/usr/bin/sh", "args": ["sh", "-c", script.replace("$0", kind)], "env": environment}]
        for kind in ("prestart", "createRuntime")
    }
    runtime.config["hooks"] = hooks
    runtime.process("/usr/bin/true")
    runtime("run", "one", check=True)
    for kind in hooks:
        places = [line.split()[4] for line in (runtime.folder / f"mounts-{kind}").read_text().splitlines()]
        assert f"{runtime.folder}/rootfs/proc" in places and f"{runtime.folder}/rootfs/dev" in places


def test_without_a_pivot_no_proc_of_the_machine_is_left(runtime: Ground) -> None:
    """A whole proc somewhere in the namespace would let a nested user namespace mount another without masks."""
    runtime.process("/usr/bin/cat", "/proc/self/mountinfo")
    done = runtime("run", "--no-pivot", "one", check=True)
    kinds = [line.partition(" - ")[2].split()[0] for line in done.stdout.splitlines()]
    roots = [line.split()[3] for line in done.stdout.splitlines() if line.partition(" - ")[2].startswith("proc ")]
    assert roots.count("/") == 1 and kinds.count("sysfs") <= 2, done.stdout


def test_a_hook_of_the_makers_that_fails_names_its_step(runtime: Ground) -> None:
    """As the errors of the container's own side do; and the process that waits for it is gone."""
    runtime.config["hooks"] = {"createRuntime": [{"path": "/usr/bin/false"}]}
    runtime.process(*SLEEP)
    done = runtime("create", "one")
    assert done.returncode == 1 and "step: hooked" in done.stderr and runtime.left() == []
    until(
        lambda: f"{runtime.folder}" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    )
