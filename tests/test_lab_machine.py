"""`make lab` from its first start to its end, in a clone of its own, as an ordinary user; nothing is lost or left.

Long: some six starts of a machine, a minute or two each under emulation, and one image when the user has none.
As root the test makes an ordinary user for the purpose; LAB_TEST_CACHE names a folder of images to begin with.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.lab import machine

TREE = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.long
RUNUSER = shutil.which("runuser", path="/usr/sbin:/sbin:/usr/bin") or "runuser"
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/lab\S*\?token=([0-9a-f]{32})")


class Checkout:
    """A person's clone of this tree, and `make` in it."""

    def __init__(self, person: pwd.struct_passwd) -> None:
        self.person = person
        self.home = Path(person.pw_dir)
        self.path = self.home / f"lab-of-test-{os.getpid()}"
        self.port, self.publish = machine.free_port(), machine.free_run(machine.PUBLISHED)
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LAB_CA"))}
        self.environment = {
            **kept,
            **{"HOME": str(self.home), "USER": person.pw_name, "LANG": "C.UTF-8", "MEMORY": "1024"},
            # No /usr/sbin: an ordinary user's PATH often lacks it.
            **{"PATH": "/usr/local/bin:/usr/bin:/bin", "PORT": str(self.port), "PUBLISH_PORT": str(self.publish)},
        }
        words = ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"]
        listed = subprocess.run(words, cwd=TREE, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (TREE / name).is_file():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TREE / name, self.path / name)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{person.pw_uid}:{person.pw_gid}", self.path], check=True)

    def words(self, *words: str) -> list[str]:
        return [*([RUNUSER, "-u", self.person.pw_name, "--"] if os.geteuid() == 0 else []), *words]

    def run(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(self.words(*words), cwd=self.path, env=self.environment, text=True, timeout=1800,
                              capture_output=True)  # fmt: skip
        assert done.returncode == status, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def inside(self, script: str) -> str:
        return self.run(".venv/bin/labkit", "guest", "exec", "--", "sh", "-c", script)

    def processes(self) -> list[str]:
        """The programs of this checkout's machine that run."""
        said = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
        return [line for line in said.splitlines() if str(self.path) in line and "qemu-system" in line
                and "runuser" not in line]  # fmt: skip

    def left(self) -> list[str]:
        """Whatever of the lab is there: processes, ports, state folders, marks on images."""
        found = self.processes()
        said = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
        ports = {int(line.split()[3].rpartition(":")[2]) for line in said.splitlines()}
        found += [f"port {port}" for port in sorted(ports & {self.port, *range(self.publish, self.publish + 10)})]
        found += [str(path) for path in (self.home / ".local/state/labkit").glob("*")]
        return found + [str(path) for path in (self.home / ".cache/labkit").glob("*/*.in-use")]


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """The clone of an ordinary user: this one, or one made for the test."""
    name = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        name = f"labtest{os.getpid()}"
        subprocess.run(["useradd", "--create-home", name], check=True)
    person = pwd.getpwnam(name)
    made = Checkout(person)
    if cache := os.environ.get("LAB_TEST_CACHE"):
        shutil.copytree(cache, made.home / ".cache" / "labkit", ignore=shutil.ignore_patterns("*.in-use", "*.json.*"))
        subprocess.run(["chown", "-R", f"{person.pw_uid}:{person.pw_gid}", made.home / ".cache"], check=True)
    yield made
    subprocess.run(made.words("make", "down"), cwd=made.path, env=made.environment, capture_output=True)
    left = made.left()
    shutil.rmtree(made.path)
    if os.geteuid() == 0:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)
    assert left == []


def test_a_start_that_is_killed_leaves_what_the_next_one_mends(checkout: Checkout) -> None:
    """SIGKILL while the machine boots: the next `make lab` takes that machine over, and one machine runs."""
    words = checkout.words(".venv/bin/labkit", "lab", "up", "--port", str(checkout.port), "--publish-port",
                           str(checkout.publish), "--memory", "1024")  # fmt: skip
    checkout.run("make", ".venv/bin/.kit")
    with subprocess.Popen(words, cwd=checkout.path, env=checkout.environment, stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as child:  # fmt: skip
        assert child.stdout is not None
        assert any("the machine boots" in line for line in child.stdout)
        os.killpg(child.pid, signal.SIGKILL)
    assert len(checkout.processes()) == 1
    said = checkout.run("make", "lab")
    assert ADDRESS.search(said)
    assert len(checkout.processes()) == 1
    checkout.run("make", "down")
    assert checkout.left() == []


def test_an_interrupted_start_leaves_nothing(checkout: Checkout) -> None:
    """Ctrl-C while the machine boots: no machine, no port, no folder."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "start_new_session": True}
    # This test itself may run where a shell has switched SIGINT off.
    words = checkout.words("env", "--default-signal=INT", "make", "lab")
    with subprocess.Popen(words, cwd=checkout.path, env=checkout.environment, **pipes) as child:
        assert child.stdout is not None
        assert any("the machine boots" in line for line in child.stdout)
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=60) != 0
    end = time.monotonic() + 30
    while checkout.left() and time.monotonic() < end:
        time.sleep(0.5)
    assert checkout.left() == []


def test_the_lab_lives_as_an_ordinary_user(checkout: Checkout) -> None:
    """Started, found again at once, written in, stopped: the files are the user's, and nothing is left."""
    said = checkout.run("make", "lab")
    address = ADDRESS.search(said)
    assert address and int(address[1]) == checkout.port
    url = f"http://127.0.0.1:{checkout.port}/api/status?token={address[2]}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        assert answer.status == 200
    began = time.monotonic()
    again = ADDRESS.search(checkout.run("make", "lab"))
    assert again and again[0] == address[0]
    assert time.monotonic() - began < 15
    checkout.inside("echo mine > /lab/notebooks/mine.txt && runuser -u learner -- sh -c 'id -un'")
    mine = checkout.path / "notebooks" / "mine.txt"
    assert (mine.read_text(), mine.stat().st_uid) == ("mine\n", checkout.person.pw_uid)
    checkout.run("make", "down")
    assert checkout.left() == []
    assert mine.read_text() == "mine\n"


def test_a_fresh_machine_keeps_the_work_of_a_wrecked_one(checkout: Checkout) -> None:
    """After `rm -rf` of what the machine needs to answer: FRESH=1 gives a new one; tree and homes are kept."""
    first = ADDRESS.search(checkout.run("make", "lab"))
    checkout.inside(
        "echo tree > /lab/notebooks/tree.txt; echo home > /root/home.txt; echo l > /home/learner/l.txt; sync"
    )
    # From now on nobody gets in, and no command runs.
    checkout.run(".venv/bin/labkit", "guest", "exec", "--", "sh", "-c",
                 "setsid sh -c 'sleep 1; systemctl stop ssh.socket ssh lab-jupyter; rm -rf /usr/bin /usr/lib/systemd'"
                 " >/dev/null 2>&1 &")  # fmt: skip
    time.sleep(15)
    second = ADDRESS.search(checkout.run("make", "lab", "FRESH=1"))
    assert first and second and first[2] != second[2]
    assert checkout.inside("cat /lab/notebooks/tree.txt; ls /usr/bin/env; ls /root") == "tree\n/usr/bin/env\n"
    kept = {path.name: path for path in (checkout.path / "lab-keepsakes").rglob("*.txt")}
    assert kept["home.txt"].read_text() == "home\n" and kept["l.txt"].read_text() == "l\n"
    assert kept["home.txt"].stat().st_uid == checkout.person.pw_uid
    assert len(checkout.processes()) == 1


def test_a_machine_that_died_is_replaced_and_its_homes_kept(checkout: Checkout) -> None:
    """A crash of the machine's kernel ends QEMU; status says so; the next `make lab` keeps the homes."""
    checkout.run("make", "lab")
    checkout.inside("echo last > /root/last.txt; sync; sync")
    subprocess.run(checkout.words(".venv/bin/labkit", "guest", "exec", "--", "sh", "-c",
                                  "(sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &"),
                   cwd=checkout.path, env=checkout.environment, timeout=300)  # fmt: skip
    end = time.monotonic() + 60
    while checkout.processes() and time.monotonic() < end:
        time.sleep(0.5)
    assert checkout.processes() == []
    done = subprocess.run(checkout.words(".venv/bin/labkit", "guest", "status"), cwd=checkout.path, text=True,
                          env=checkout.environment, capture_output=True)  # fmt: skip
    assert done.returncode != 0 and "has ended by itself" in done.stderr
    checkout.run("make", "lab")
    assert [path.read_text() for path in (checkout.path / "lab-keepsakes").rglob("last.txt")] == ["last\n"]
    checkout.run("make", "down")
    assert checkout.left() == []
