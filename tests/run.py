"""`make test`: every test in the place that can run it, and the closing lines that say so.

What this host's kernel can run, runs here; what needs cgroup controllers and the rest of the
lab's kernel runs in the lab's machine, a second one beside a learner's own, started for the
purpose and stopped in the end.  The last line is for machines that read it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests import outcome

TREE = Path(__file__).resolve().parents[1]
RESULTS = TREE / ".lab" / "results"
BUDGET = 3600  # seconds, under emulation

# program (or file): package.  The peers and tools that the tests compare with, named alike by Debian and Ubuntu.
TOOLS = {
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "zstd": "zstd",
    "strace": "strace",
    "ruby": "ruby",
    "umoci": "umoci",
    "runc": "runc",
    "crun": "crun",
    "vagrant": "vagrant",
    "chromium": "chromium",
    "mmdebstrap": "mmdebstrap",
    "fakeroot": "fakeroot",
    "cpp": "cpp",
    "ss": "iproute2",
    "socat": "socat",
    "ps": "procps",
    "/usr/bin/python3": "python3",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "ssh": "openssh-client",
    "newuidmap": "uidmap",
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
    "grub-mkimage": "grub-common",
    "/usr/lib/grub/i386-pc": "grub-pc-bin",
    "/usr/include/linux/mount.h": "linux-libc-dev",
    "/usr/aarch64-linux-gnu/include/linux/mount.h": "linux-libc-dev-arm64-cross",
    "/usr/share/doc/vagrant-libvirt": "vagrant-libvirt",
    "dig": "bind9-dnsutils",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ping": "iputils-ping",
    "skopeo": "skopeo",
    "podman": "podman",
}
LONG_TOOLS = {
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon",
    "/usr/share/doc/libvirt-daemon-driver-qemu": "libvirt-daemon-driver-qemu",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-aarch64-static": "qemu-user-static",
    "arch-test": "arch-test",
}
BENCH_TOOLS = {
    "podman": "podman",
    "runc": "runc",
    "crun": "crun",
    "umoci": "umoci",
    "nft": "nftables",
    "iptables": "iptables",
    "iperf3": "iperf3",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/lib/podman/netavark": "netavark",
}


class Part(NamedTuple):
    """One part's end."""

    name: str
    where: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    unsteady: int = 0  # failed, and passed alone: see outcome.py


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test", description="run every test where it can run")
    parser.add_argument("--long", action="store_true", help="also what is long by nature")
    given = parser.parse_args()
    began = time.monotonic()
    provide(TOOLS | (LONG_TOOLS if given.long else {}))
    fetch_crane()
    # Beside a learner's own lab, on ports that nobody else has.
    os.environ["LAB_NAME"] = "test"
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    parts = [lint(), build_image()]
    lab = Lab(given.long)
    lab.start()
    parts.append(host_tests(given.long))
    parts += lab.ready()
    if lab.is_up():
        parts += after_both(given.long)
    parts.append(lab.stop())
    return close(parts, time.monotonic() - began)


def provide(tools: dict[str, str]) -> None:
    """Install what is missing when root, else say the one command and end: nothing is skipped in silence."""
    lacking = sorted({package for tool, package in tools.items() if not there(tool)})
    if not lacking:
        return
    words = ["apt-get", "install", "-y", "--no-install-recommends", *lacking]
    if os.geteuid() != 0:
        sys.exit(f"make test: missing here: {', '.join(lacking)}\n  next: sudo {' '.join(words)}")
    say(f"installing {' '.join(lacking)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "-q", "update"], [*words, "-q", "-q"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"make test: {' '.join(command)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def there(tool: str) -> bool:
    if tool.startswith("/"):
        return Path(tool).exists()
    return any(shutil.which(tool, path=path) for path in (None, "/usr/sbin:/sbin"))


def fetch_crane() -> None:
    """crane on this host: from the distribution's newer suite, as the lab's machine gets it."""
    if not there("crane"):
        if os.geteuid() != 0:
            sys.exit("make test: crane is missing here\n  next: sudo sh vagrant/install-crane.sh")
        say("installing crane")
        subprocess.run(["sh", "vagrant/install-crane.sh"], cwd=TREE, check=True, stdout=subprocess.DEVNULL)


def lint() -> Part:
    """ruff, its format, mypy, and whether each notebook was made from its present source: one test each."""
    began, failed = time.monotonic(), 0
    bin_ = Path(sys.executable).parent
    checks = (
        [bin_ / "ruff", "check", "."],
        [bin_ / "ruff", "format", "--check", "."],
        [bin_ / "mypy"],
        [sys.executable, "-m", "tests.nb.make", "--check"],
    )
    for words in checks:
        failed += run("lint", [str(word) for word in words]) != 0
    return Part("lint", "host", len(checks) - failed, failed, 0, time.monotonic() - began)


def build_image() -> Part:
    """The image with the tests' peers, in the cache before any test measures this host.

    The notebooks' twins come from the learner's image (`make notebooks`), which lacks the peers.
    """
    began = time.monotonic()
    code = "from labkit.lab import image_build, state; print(image_build.build(state.TREE, variant='test'))"
    failed = run("image", [sys.executable, "-c", code]) != 0
    return Part("image", "host", int(not failed), int(failed), 0, time.monotonic() - began)


class Lab:
    """The lab's machine for the tests: it boots, and runs its own tests, while the host's tests run.

    Emulated, it has one of the host's processors however many it shows; the other is the host tests'.
    """

    def __init__(self, long: bool) -> None:
        self.long = long
        self.parts: list[Part] = []
        self.thread = threading.Thread(target=self._live)

    def _live(self) -> None:
        words = [sys.executable, "-m", "labkit", "lab", "up", "--variant", "test", "--memory", "3072",
                 "--port", "0", "--publish-port", "0"]  # fmt: skip
        began = time.monotonic()
        status = run_kept("lab up", words)
        self.parts.append(Part("lab up", "host", int(not status), int(bool(status)), 0, time.monotonic() - began))
        if self.is_up():
            # One line a test: its dots would stand among those of the host's.
            self.parts.append(pytest("guest tests", "guest", IN_THE_LAB, "tests/guest", self.long, ["-v", "-v"]))

    def is_up(self) -> bool:
        return bool(self.parts) and not self.parts[0].failed

    def start(self) -> None:
        self.thread.start()

    def ready(self) -> list[Part]:
        """Wait for what it does beside the host's tests: the boot, and its own tests."""
        self.thread.join()
        # A part that is missing, since this thread broke off, is a failure too.
        names = ("lab up", "guest tests")[len(self.parts) :]
        return self.parts + [Part(name, "host", 0, 1, 0, 0.0) for name in names]

    def stop(self) -> Part:
        """`labkit lab down`, and then nothing of it may be left."""
        began = time.monotonic()
        if run("lab log", [sys.executable, "-m", "labkit", "guest", "log"], show=False):
            say("the lab's log could not be read")
        failed = run("lab down", [sys.executable, "-m", "labkit", "lab", "down"]) != 0
        return Part("lab down", "host", int(not failed), int(failed), 0, time.monotonic() - began)


def host_tests(long: bool) -> Part:
    elsewhere = [f"--ignore=tests/{folder}" for folder in ("guest", "hostguest", "browser")]
    return pytest("host tests", "host", [sys.executable], "tests", long, elsewhere)


IN_THE_LAB = [sys.executable, "-m", "labkit", "guest", "exec", "--", "env", "PYTHONPATH=/lab", "LC_ALL=C.UTF-8",
              "/opt/labkit/venv/bin/python"]  # fmt: skip


def after_both(long: bool) -> list[Part]:
    """What needs the host and the machine, or the machine alone: the notebooks take a census of it."""
    plugin = ["-p", "tests.nb.plugin", "--relational", "--nbval-cell-timeout=150", "--nbval-kernel-startup-timeout=300"]
    return [
        pytest("guest from outside", "host+guest", [sys.executable], "tests/hostguest", long),
        pytest("notebooks", "guest", IN_THE_LAB, "notebooks", long, plugin),
        pytest("browser", "host+guest", [sys.executable], "tests/browser", long),
    ]


def pytest(name: str, where: str, python: list[str], folder: str, long: bool, options: Sequence[str] = ()) -> Part:
    """Run pytest somewhere; its counts come from its JUnit file, which lies in the shared tree."""
    began = time.monotonic()
    words = [*options, *(["--long"] if long else [])]
    status, first = tests_of(name, [*python, "-m", "pytest", *words, folder])
    failures, unsteady = first.failures, {}
    if status == 1 and outcome.worth_a_second_try(first):
        _, second = tests_of(f"{name} again", [*python, "-m", "pytest", *words, *first.files])
        unsteady = outcome.unsteady(first, second)
        failures = {key: text for key, text in (first.failures | second.failures).items() if key not in unsteady}
    FAILED.extend(f"{name}: {key} failed:\n{text}" for key, text in failures.items())
    FAILED.extend(f"{name}: {key} is unsteady: it passed alone; at first:\n{text}" for key, text in unsteady.items())
    # No tests found, or a run that broke off, is a failure too.
    failed = len(failures) + int(status not in (0, 1) or (status == 1 and not first.failures))
    passed = len(first.passed) + len(unsteady)
    return Part(name, where, passed, failed, len(first.skipped), time.monotonic() - began, len(unsteady))


def tests_of(name: str, words: list[str]) -> tuple[int, outcome.Outcome]:
    """One run of pytest: its exit status, and what its JUnit file says."""
    file = RESULTS / f"{name.replace(' ', '-')}.xml"
    more = ["-q", "-p", "no:cacheprovider", "--color=no", "--durations=5", "-o", "junit_family=xunit1"]
    return run(name, [*words, *more, f"--junitxml={file.relative_to(TREE)}"]), outcome.read(file)


def run(name: str, words: list[str], show: bool = True) -> int:
    say(f"{name} ...")
    done = subprocess.run(words, cwd=TREE, stdout=None if show else subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return done.returncode


def run_kept(name: str, words: list[str]) -> int:
    """Run it; what it said on both streams stands here, and once more at the end (`close`) when it fails.

    A machine that did not come up is said while the host's tests print: thousands of lines above the end.
    """
    say(f"{name} ...")
    done = subprocess.run(words, cwd=TREE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace")  # fmt: skip
    print(done.stdout, end="", flush=True)
    if done.returncode:
        FAILED.append(f"{name} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.returncode


FAILED: list[str] = []


STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"\n[{time.monotonic() - STARTED:5.0f} s] {text}", flush=True)


def close(parts: list[Part], seconds: float) -> int:
    """What failed beside tests; how many ran where, how long each took, and the sum."""
    for text in FAILED:
        print(f"\n{text}")
    columns = ("passed", "failed", "skipped", "unsteady", "seconds")
    print(f"\n{'part':<20}{'where':<12}" + "".join(f"{name:>9}" for name in columns))
    for part in parts:
        print(f"{part.name:<20}{part.where:<12}" + "".join(f"{getattr(part, name):>9.0f}" for name in columns))
    passed, failed, skipped, unsteady = (sum(getattr(part, key) for part in parts) for key in columns[:4])
    if seconds > BUDGET:
        print(f"over the budget of {BUDGET} s")
    print(f"all of it in {seconds:.0f} s on this host and in the lab's machine")
    if unsteady:
        print(f"{unsteady} of them unsteady: failed beside the others, and passed alone; each is a fault to be found")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
