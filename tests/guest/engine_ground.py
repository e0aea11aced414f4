"""Ground for the tests of engines: one story, told under runc and under labkit-runtime, and its rows compared.

A story is a shell script; a line `o NAME EXPECTED` in it begins an observation.  What is printed from there to the
next such line, by the engine or from inside a container, has to be the same under both runtimes; where EXPECTED
is given, runc's holds it, so that two equal failures are none.  Each row is a test; a story runs once a runtime.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from runtime_ground import IMAGE, Machine, child, until
from test_build_docker import archive

from labkit.image.store import Store
from labkit.kernel import cgroups
from labkit.observe import census
from labkit.runtime import program

TREE = Path(__file__).resolve().parents[2]
RUNC, OURS = "runc", "labkit-runtime"
ROW = re.compile(r"^[ ']*o ([\w.-]+)(?: +([^;#\n]*[^;#\s]))?", re.M)

# What engines keep at places of their own is laid over the machine's, and goes with the mount namespace.
HOLDER = """
for folder in /run/containerd /run/docker /run/netns /run/containers /run/libpod /run/lock /var/lib/cni \
    /var/lib/containers /var/lib/docker /etc/containers/networks /etc/cni /run/runc /run/labkit-runtime
do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
ip link set lo up
$MORE
echo ready
exec >/dev/null sleep infinity  # or whoever reads to the end would wait for it
"""

# A mount that another hides is listed all the same, and podman, for a user namespace, unmounts all below /sys.
FRESH = """
umount /sys/fs/cgroup /sys; umount -l -R /sys
mount -t sysfs sysfs /sys; mount -t cgroup2 none /sys/fs/cgroup
"""
# o: begin an observation.  x: run a command, its errors among what it says, and its exit status.  pty: in a terminal.
WORDS = """
o() { echo "== $1"; }
x() { "$@" 2>&1; echo "exit $?"; }
pty() {
    said=$(SHELL=/bin/sh script -qec "stty rows 33 cols 77; . $D/words; $1" /dev/null </dev/null)
    status=$?
    echo "$said" | grep -v "resize pty"  # ctr's complaint about a terminal that is gone again
    echo "exit $status"
}
"""
CONTAINERD = "containerd -c $D/containerd.toml --root $D/c-root --state $D/c-state --address $D/c --log-level error"
# What differs between any two containers, or names the runtime.
TELLING = {
    re.compile(pattern): instead
    for pattern, instead in (
        (r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "ID"),
        (r"[\w/.-]*/labkit-runtime|[\w/.-]*/runc\b|\brunc\b", "RUNTIME"),
        (r"@if\d+", "@if"),
        (r'time="[^"]*"', "time"),
        (r"\r|\^@", ""),
        # runc, when systemd has taken its scope away before it looked.
        (r'time level=warning msg="(freezer not supported|lstat /sys/fs/cgroup).*\n', ""),
        (r"\n\n+", "\n"),
    )
}


class Guest(Machine):
    """This machine's own processes and cgroups, as a service manager wants them, with mounts and network apart."""

    def words(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "--", *command]


class Engine:
    """An engine with its folder, its cgroup driver and the place in which it runs."""

    def __init__(self, place: Machine, folder: Path, driver: str, prelude: str) -> None:
        self.place = place
        self.driver = driver
        self.environment = {
            **os.environ,
            "D": str(folder),
            "DRIVER": driver,
            "IMAGE": f"{IMAGE}:latest",
            "WORDS": WORDS,
            "OURS": str(folder / OURS),
        }
        self.folder = folder
        (folder / "words").write_text(WORDS + prelude)
        program.write(str(folder / OURS), str(TREE))
        archive(Store(place.data / "images").get(IMAGE), f"{IMAGE}:latest", folder / "image.tar")
        (folder / "containerd.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        self.environment.pop("XDG_RUNTIME_DIR", None)
        self.told: dict[tuple[str, str], dict[str, str]] = {}

    def sh(self, script: str, timeout: float = 1200, **more: str) -> str:
        """What a script says, where the engine is."""
        words = self.place.words("sh", "-c", f". $D/words\n{script}")
        # In a session of its own: what a story signals by a wrong number, 0, is its own group and not the tests'.
        done = subprocess.run(words, env=self.environment | more, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                              start_new_session=True)  # fmt: skip
        return done.stdout

    def told_by(self, script: str, runtime: str) -> str:
        """What a script says with this runtime, once all that it started has ended (a monitor, a shim)."""
        before = set(census.READERS["process"]())
        said = self.sh(script, RT=self.environment["OURS"] if runtime == OURS else shutil.which("runc") or "")
        until(lambda: not set(census.READERS["process"]()) - before)
        return said

    @contextmanager
    def daemon(self, command: str, answers: str) -> Iterator[None]:
        """Have a daemon running, from when it answers."""
        name = command.split()[0]
        words = self.place.words("sh", "-c", f"echo $$ > $D/pid-of-{name}; exec {command}")
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 200
            while self.sh(f"{answers} >/dev/null 2>&1 && echo yes") != "yes\n":
                assert process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.5)
            yield
        finally:
            self.sh(f"kill $(cat $D/pid-of-{name})")
            process.wait(60)

    def tell(self, name: str, story: str, runtime: str) -> dict[str, str]:
        """The observations of a story under one runtime, told when first asked for."""
        if (name, runtime) not in self.told:
            began = time.monotonic()
            said = self.told_by(story, runtime)
            print(f"{name} under {runtime}: {time.monotonic() - began:.1f} s\n{said}")
            for pattern, instead in TELLING.items():
                said = pattern.sub(instead, said)
            rows = re.split(r"^== ([\w.-]+)\n", said, flags=re.M)
            self.told[name, runtime] = {"": rows[0], **dict(zip(rows[1::2], rows[2::2], strict=True))}
        return self.told[name, runtime]

    def compare(self, name: str, story: str, row: str, expected: str) -> None:
        """The row is there under both, and equal."""
        theirs = self.tell(name, story, RUNC)
        assert row in theirs, f"runc did not get so far: {theirs}"
        assert expected in theirs[row], theirs[row]
        ours = self.tell(name, story, OURS)
        found = ours.get(row, f"labkit-runtime did not get so far: {ours}")
        assert found == theirs[row], f"labkit-runtime:\n{found}\nrunc:\n{theirs[row]}"


def drivers() -> tuple[str, ...]:
    """The cgroup drivers that labkit-runtime keeps."""
    code = "import sys; from labkit.runtime.life.command import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "--root", "/run/no-such", "--systemd-cgroup", "list"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(TREE)}, capture_output=True)
    return ("cgroupfs", "systemd") if done.returncode == 0 else ("cgroupfs",)


def kept_by() -> list[object]:
    """The drivers, for pytest.mark.parametrize; what is not cgroupfs is long."""
    return [pytest.param(one, id=one, marks=[] if one == "cgroupfs" else [pytest.mark.long]) for one in drivers()]


def rows(stories: dict[str, str], quick: set[str]) -> list[object]:
    """[story, row, what runc's observation holds] for pytest.mark.parametrize; what is not quick is long."""
    found: list[object] = []
    for name, story in stories.items():
        for row, expected in ROW.findall(story):
            marks = [] if name in quick else [pytest.mark.long]
            found.append(pytest.param(name, row, expected, marks=marks, id=f"{name}-{row}"))
    return found


@contextmanager
def engine_in(machine: Machine, folder: Path, driver: str, prelude: str) -> Iterator[Engine]:
    """A place for an engine, and the census when it is gone."""
    before = census.take()
    with place(machine, driver) as where:
        yield Engine(where, folder, driver, prelude)
    left = census.difference(before, census.take())
    assert left == [], left


@contextmanager
def place(machine: Machine, driver: str) -> Iterator[Machine]:
    """Where an engine with this driver can live, with mounts of its own; ends with all that runs there."""
    before = handed(machine.group.parent)
    script = HOLDER.replace("$MORE", "" if driver == "systemd" else FRESH)
    words = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script]
    top, *slices = [cgroups.root(), cgroups.root() / "system.slice", cgroups.root() / "machine.slice"]
    given = handed(top)
    if driver == "systemd":
        # Delegated, for as long as it lasts: or systemd hands controllers on with each container, and takes them back.
        words = ["systemd-run", "--quiet", "--scope", "-p", "Delegate=yes", "unshare", "-n", *words[1:]]
    else:
        words = machine.words(*words)
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        pid = holder.pid if driver == "systemd" else child(holder)
        yield (Guest if driver == "systemd" else Machine)(pid, machine.folder, machine.group)
        os.kill(pid, signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
        for group in machine.group.parent.iterdir():
            if group.is_dir() and group != machine.group:
                until(lambda group=group: _removed(group))
        cgroups.disable(machine.group.parent, handed(machine.group.parent) - before)
        if driver == "systemd":
            until(lambda: _as_before(top, slices, given))


def _as_before(top: Path, slices: Sequence[Path], given: set[str]) -> bool:
    """Whether the top hands on what it did, and goes on to: systemd, asked to, changes it some time later."""
    # The slices first: the top cannot take back what a child hands on.
    for group in (*filter(Path.exists, slices), top):
        cgroups.disable(group, handed(group) - given)
    cgroups.enable(top, given)  # what systemd has taken back meanwhile
    time.sleep(2)
    return handed(top) == given


def handed(group: Path) -> set[str]:
    """The controllers that this cgroup hands on."""
    return set((group / "cgroup.subtree_control").read_text().split())


def _removed(group: Path) -> bool:
    cgroups.remove(group)
    return not group.exists()
