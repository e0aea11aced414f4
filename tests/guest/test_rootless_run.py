"""labkit run as an ordinary user: the machine's `learner`, root of one user namespace and of nothing else."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_ground import IMAGE

from labkit.image.store import Store
from labkit.kernel import cgroups

pytestmark = pytest.mark.guest

USER = "learner"
TREE = Path(__file__).resolve().parents[2]


class Learner:
    """The user's own folders, and `labkit` as that user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = pwd.getpwnam(USER)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run"),
                            "PYTHONPATH": str(TREE), "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
                            "LC_ALL": "C.UTF-8"}  # fmt: skip
        (folder / "run").mkdir(parents=True)
        os.chown(folder, self.owner.pw_uid, self.owner.pw_gid)
        os.chown(folder / "run", self.owner.pw_uid, self.owner.pw_gid)

    def __call__(self, *words: str, inside: Path | None = None) -> subprocess.CompletedProcess[str]:
        """labkit WORDS; `inside`: in this cgroup."""
        command = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", sys.executable, "-m", "labkit", *words]
        if inside:
            command = ["sh", "-c", f'echo $$ > {inside}/cgroup.procs; exec "$@"', "sh", *command]
        return subprocess.run(command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=240)  # fmt: skip

    def said(self, *words: str, inside: Path | None = None) -> str:
        """What a command printed that went well."""
        done = self(*words, inside=inside)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def holders(self) -> list[int]:
        """The processes that hold namespaces for this user."""
        found = subprocess.run(["pgrep", "-u", USER, "-f", "^labkit-holder"], capture_output=True, text=True)
        return [int(line) for line in found.stdout.split()]


@pytest.fixture(scope="module")
def learner() -> Iterator[Learner]:
    """A user with one image; nothing of it is left."""
    made = Learner(Path(f"/var/tmp/rootless-{uuid.uuid4().hex[:8]}"))
    made.said("pull", IMAGE)
    yield made
    assert made("reset").returncode == 0
    assert made.holders() == []
    shutil.rmtree(made.folder)


def test_the_user_is_root_inside_and_nobody_else_outside(learner: Learner) -> None:
    """Numbers, files, processes: 0 is the learner, a second user one of the subordinate ones."""
    look = (
        "id -u; cat /proc/self/uid_map; touch /mine; chown 7 /mine; stat -c %u /mine; cat /proc/1/comm; ls /proc/1/fd"
    )
    said = learner.said("run", "--name", "one", IMAGE, "sh", "-c", look).splitlines()
    first = next(int(line.split(":")[1]) for line in Path("/etc/subuid").read_text().split() if line.startswith(USER))
    assert said[0] == "0"
    assert [line.split() for line in said[1:3]] == [["0", str(learner.owner.pw_uid), "1"], ["1", str(first), "65536"]]
    assert said[3] == "7"
    (state,) = json.loads(learner.said("ps", "--all", "--json"))
    upper = learner.folder / ".local/share/labkit/containers" / state["id"] / "upper/mine"
    assert upper.stat().st_uid == first + 6
    learner.said("rm", "one")


def test_a_whole_life(learner: Learner) -> None:
    """run -d, ps, exec as another user, logs, stop, rm: each verb enters the same namespaces."""
    learner.said("run", "-d", "--name", "box", IMAGE, "sh", "-c", "echo up; exec sleep 1000")
    assert "box" in learner.said("ps")
    assert learner.said("exec", "box", "id", "-u") == "0\n"
    assert learner.said("exec", "--user", "5:6", "box", "sh", "-c", "id -u; id -g") == "5\n6\n"
    assert learner.said("logs", "box") == "up\n"
    (state,) = json.loads(learner.said("ps", "--json"))
    inside = Path(f"/proc/{state['pid']}/ns/user").readlink()
    (holder,) = learner.holders()
    assert Path(f"/proc/{holder}/ns/user").readlink() == inside != Path("/proc/self/ns/user").readlink()
    assert Path(f"/proc/{state['pid']}/status").read_text().split("Uid:")[1].split()[0] == str(learner.owner.pw_uid)
    learner.said("rm", "--force", "box")
    assert learner.said("ps", "--all", "--quiet") == ""


def test_layers_are_copied_on_write(learner: Learner) -> None:
    """What is deleted and made again in the overlay stays so: its marks are user.overlay.*, which a user may set."""
    script = "cd /usr/share; rm -r init*; mkdir initramfs-tools; ls initramfs-tools"
    script += "; rm /bin/ls; test -e /bin/ls || echo gone"
    said = learner.said("run", "--name", "cow", IMAGE, "sh", "-c", script)
    assert said == "gone\n"
    (state,) = json.loads(learner.said("ps", "--all", "--json"))
    upper = learner.folder / ".local/share/labkit/containers" / state["id"] / "upper"
    marked = upper / "usr/share/initramfs-tools"
    assert os.getxattr(marked, "user.overlay.opaque") == b"y"
    assert "trusted.overlay.opaque" not in os.listxattr(marked)
    learner.said("rm", "cow")


def test_networks_are_none_and_the_machines(learner: Learner) -> None:
    """By default alone with a loopback; --network host is the machine's; what needs root is refused with the reason."""
    alone = learner("run", "--rm", IMAGE, "ls", "/sys/class/net")
    assert alone.stdout == "lo\n" and "it is on no network" in alone.stderr
    assert learner("run", "--rm", "--network", "none", IMAGE, "true").stderr == ""
    refused = learner("run", "--rm", "--ip", "172.30.0.9", IMAGE, "true")
    assert refused.returncode != 0 and "--ip needs root" in refused.stderr
    assert "lo" in learner.said("run", "--rm", "--network", "host", IMAGE, "ls", "/sys/class/net")
    refused = learner("run", "--rm", "--publish", "8080:80", IMAGE, "true")
    assert refused.returncode != 0 and "--publish needs root" in refused.stderr and "--network host" in refused.stderr
    refused = learner("run", "--rm", "--network", "shop", IMAGE, "true")
    assert refused.returncode != 0 and "needs root" in refused.stderr


def test_the_machine_is_out_of_reach(learner: Learner) -> None:
    """Root inside mounts nothing of the machine's, makes no node, reads no other user's file, sets no clock."""
    tries = ["mknod /node b 254 0", "cat /m/etc/shadow", "hwclock -w", "mount -t ext4 /dev/vda /mnt"]
    script = "; ".join(f"{each} 2>/dev/null && echo '{each}'" for each in tries) + "; echo end"
    said = learner.said("run", "--rm", "--volume", "/:/m:ro", "--cap-add", "ALL", IMAGE, "sh", "-c", script)
    assert said == "end\n"


def test_a_limit_without_a_cgroup_is_refused(learner: Learner) -> None:
    """Said by name, with what would help; without a limit the container runs in no cgroup of its own."""
    done = learner("run", "--rm", "--memory", "64m", IMAGE, "true")
    assert done.returncode == 125
    assert "was not delegated to this user" in done.stderr and "Delegate=yes" in done.stderr
    assert "lost" not in learner.said("ps", "--all")


@pytest.fixture
def delegated(learner: Learner) -> Iterator[Path]:
    """A cgroup that root has given to the user (cgroup-v2.rst, "Delegation")."""
    top = cgroups.root()
    new = cgroups.enable(top, {"memory", "pids"})
    group = top / f"rootless-{uuid.uuid4().hex[:8]}"
    cgroups.create(group)
    for file in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chown(group / file, learner.owner.pw_uid, learner.owner.pw_gid)
    yield group
    cgroups.remove(group)
    cgroups.disable(top, new)


def test_limits_in_a_delegated_cgroup(learner: Learner, delegated: Path) -> None:
    """memory.max and pids.max are the kernel's, who goes over it is killed, and the cgroup goes with the container."""
    words = ["run", "--rm", "--memory", "32m", "--pids-limit", "50", IMAGE]
    script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    assert learner.said(*words, "sh", "-c", script, inside=delegated) == f"{32 << 20}\n50\n"
    killed = learner(*words, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", inside=delegated)
    assert killed.returncode == 137 and "for want of memory" in killed.stderr
    assert [path.name for path in delegated.iterdir() if path.is_dir()] == ["labkit-own"]


def test_a_build(learner: Learner) -> None:
    """RUN runs in the same namespaces; the image starts, and prune takes its layers away again."""
    folder = learner.folder / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo made > /made && chown 9 /made\nCMD cat /made\n")
    learner.said("build", "--tag", "mine", str(folder))
    assert learner.said("run", "--rm", "mine") == "made\n"
    assert learner.said("run", "--rm", "mine", "stat", "-c", "%u", "/made") == "9\n"
    learner.said("rmi", "mine")


def test_what_a_build_deletes_and_makes_again_stays_deleted(learner: Learner) -> None:
    """The layer's archive says that the folder hides the one below: a user's overlay marks with user.overlay.*."""
    folder = learner.folder / "again"
    folder.mkdir()
    line = "rm -r /usr/share/init* && mkdir /usr/share/initramfs-tools && touch /usr/share/initramfs-tools/new"
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN {line}\n")
    learner.said("build", "--tag", "again", str(folder))
    image = Store(learner.folder / ".local/share/labkit/images").get("again")
    with tarfile.open(image.store.path(image.manifest.layers[-1].digest)) as layer:
        inside = {name for name in layer.getnames() if name.startswith("usr/share/initramfs-tools")}
    assert inside == {f"usr/share/initramfs-tools{name}" for name in ("", "/.wh..wh..opq", "/new")}
    # The step is known to the cache, and its folder among the unpacked layers: from the archive it is the same.
    assert learner.said("run", "--rm", "again", "ls", "/usr/share/initramfs-tools") == "new\n"
    shutil.rmtree(learner.folder / ".local/share/labkit/layers")
    assert learner.said("run", "--rm", "again", "ls", "/usr/share/initramfs-tools") == "new\n"
    learner.said("rmi", "again")


def test_two_first_verbs_at_once_make_one_namespace(learner: Learner) -> None:
    """After a reset there is none; of two that come together, one makes it and the other waits."""
    learner.said("reset")
    assert learner.holders() == []
    words = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", sys.executable, "-m", "labkit", "ps"]
    both = [subprocess.Popen(words, cwd=learner.folder, env=learner.environment) for _ in range(2)]
    assert [one.wait(240) for one in both] == [0, 0]
    assert len(learner.holders()) == 1


def test_without_numbers_of_ones_own_it_is_refused(learner: Learner) -> None:
    """A user whom /etc/subuid does not know is told what root can do."""
    words = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", sys.executable, "-m", "labkit", "ps"]
    environment = {**learner.environment, "XDG_RUNTIME_DIR": "/var/tmp/rootless-nobody", "HOME": "/nonexistent"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 125 and "usermod --add-subuids" in done.stderr
    assert not Path("/var/tmp/rootless-nobody").exists()
