"""Ground for the runtime tests: a machine within this machine, in which labkit runs containers.

It has mount, network, process and cgroup namespaces of its own, its own /sys and state folders,
and one image in its store.  What is left behind in it cannot reach this machine; what it holds
is counted from inside by labkit.observe.census.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.image import kit
from labkit.kernel.mounts import find

IMAGE = "localhost:5000/busybox"
# A test file says: pytest_plugins = ["runtime_machine"]; pytestmark = in_a_machine
in_a_machine = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
    pytest.mark.usefixtures("nothing_left"),
]

# Process 1 of the machine: its mounts made, it says so and waits; it reaps what is left to it.
# The fresh sysfs and cgroup2 show the machine's own network and cgroup namespace.
HOLDER = """
mount -t sysfs sysfs /sys && mount -t cgroup2 none /sys/fs/cgroup || exit 1
ip link set lo up || exit 1
trap : CHLD
echo ready
while :; do sleep 3600; done
"""


class Machine:
    """The namespaces of the process `pid`; `labkit` runs the command in them."""

    def __init__(self, pid: int, folder: Path, group: Path) -> None:
        self.pid = pid
        self.group = group
        self.folder = folder
        self.data = folder / "data"
        self.environment = {**os.environ, "LABKIT_RUN": str(folder / "run"), "LABKIT_DATA": str(self.data)}

    def words(self, *command: str) -> list[str]:
        """The command line that runs `command` inside."""
        # First into its cgroup: with nsdelegate nobody moves from outside a cgroup namespace into it.
        enter = ["sh", "-c", f'echo $$ > "{self.group}/cgroup.procs" && exec "$@"', "sh"]
        return [*enter, "nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-C", "--", *command]

    def sh(self, *command: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """Run a program inside."""
        extra = {"env": self.environment, "text": True, "capture_output": True, "timeout": 60, **extra}
        return subprocess.run(self.words(*command), **extra)

    def labkit(self, *arguments: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """Run `labkit` inside; standard input is empty unless given."""
        if "input" not in extra:
            extra.setdefault("stdin", subprocess.DEVNULL)
        return self.sh(sys.executable, "-m", "labkit", *arguments, **extra)

    def run(self, *arguments: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """labkit run --rm --network none ARGUMENTS, IMAGE being among them."""
        return self.labkit("run", "--rm", "--network", "none", *arguments, **extra)

    def said(self, script: str, *options: str, **extra: Any) -> str:
        """What a shell script prints in a new container."""
        done = self.run(*options, IMAGE, "sh", "-c", script, **extra)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str, **extra: Any) -> subprocess.Popen[str]:
        """labkit run in the background of the test (nsenter is its parent: see `child`)."""
        extra = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **extra}
        words = [sys.executable, "-m", "labkit", "run", "--rm", *arguments]
        return subprocess.Popen(self.words(*words), env=self.environment, text=True, **extra)

    def states(self) -> list[dict[str, Any]]:
        """Everything that labkit ps knows, ended containers too."""
        found: list[dict[str, Any]] = json.loads(self.labkit("ps", "--all", "--json").stdout)
        return found

    def python(self, program: str, timeout: float = 120) -> Any:
        """Run a Python program inside; what it gave to say()."""
        prelude = "import json\ndef say(value): print('ANSWER ' + json.dumps(value), flush=True)\n"
        done = self.sh(sys.executable, "-c", prelude + textwrap.dedent(program), timeout=timeout)
        assert done.returncode == 0, done.stderr[-4000:]
        answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        return json.loads(answers[-1].removeprefix("ANSWER ")) if answers else None

    def census(self) -> dict[str, list[str]]:
        """What the machine holds, and what labkit remembers."""
        found: dict[str, list[str]] = self.python("from labkit.observe import census\nsay(census.take())")
        found["containers"] = sorted(path.name for path in self.data.glob("containers/[!.]*"))
        found["ledgers"] = sorted(path.name for path in (self.folder / "run/ledger").glob("*"))
        return found

    def pid_of(self, name: str) -> int:
        """Process 1 of the running container `name`, as the machine numbers it."""

        def running() -> int:
            return next((one["pid"] for one in self.states() if one["name"] == name and one["status"] == "running"), 0)

        return int(until(running))


def child(process: subprocess.Popen[str]) -> int:
    """The pid of the program that nsenter started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: Path(f"/proc/{process.pid}/comm").read_text() != "sh\n")
    return int(until(lambda: children.read_text().split())[0])


def until(done: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Ask until the answer is true; return it."""
    deadline = time.monotonic() + seconds
    while not (answer := done()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return answer


@contextmanager
def new_machine(folder: Path, images: Path) -> Iterator[Machine]:
    """A machine that ends, with all that runs in it, when the `with` ends."""
    (folder / "data").mkdir(parents=True)
    shutil.copytree(images, folder / "data" / "images")
    top = find("cgroup2")
    assert top is not None, "this machine has no cgroup2 tree at all"
    group = top / f"test-{uuid.uuid4().hex[:12]}"
    group.mkdir()
    start = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
    namespaces = ["unshare", "-C", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc"]
    holder = subprocess.Popen(
        ["sh", "-c", start, "sh", *namespaces, "sh", "-c", HOLDER], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        # Out of the machine's root cgroup, or it could hand no controller on (no internal processes).
        (group / "holder").mkdir()
        # More than once: a shell that forks between our reading and our writing leaves its child behind.
        until(lambda: _moved(group / "cgroup.procs", group / "holder/cgroup.procs"))
        until(lambda: _sleeps(child(holder)))  # a shell that is becoming sleep has another name in the next census
        yield Machine(child(holder), folder, group / "holder")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        for path in [*sorted(group.rglob("*/"), reverse=True), group]:
            until(lambda path=path: _removed(path))


def _sleeps(pid: int) -> bool:
    """Whether the machine's process 1 has started its sleep."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(Path(f"/proc/{one}/comm").read_text() == "sleep\n" for one in children)


def _moved(start: Path, end: Path) -> bool:
    pids = start.read_text().split()
    for pid in pids:
        end.write_text(pid)
    return not pids


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def image_layout(base: Path) -> Path:
    """The kit's own busybox as a store that holds it, made once a test session."""
    ready = base / "runtime-images"
    if not ready.is_dir():
        kit.build(base / "runtime-kit", ["busybox"])
        index = base / "runtime-kit/busybox/index.json"
        document = json.loads(index.read_text())
        document["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = f"{IMAGE}:latest"
        index.write_text(json.dumps(document))
        (base / "runtime-kit/busybox").rename(ready)
    return ready
