"""What would stop the lab is said before anything starts, all of it at once, each with its remedy."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.lab import image_build, machine, preflight
from labkit.lab.accelerator import Accelerator
from labkit.lab.image_build import Image

TREE = Path(__file__).resolve().parent.parent
CAN_LAB = TREE / "vagrant" / "host" / "can-lab.sh"
LISTENER = """
import socket, sys, time
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
time.sleep(300)
"""
# Prints what check() says; run in a child, whose environment and mounts are its own.
CHECK = """
import json, sys
from labkit.errors import LabError
from labkit.lab import preflight
try:
    preflight.check(arch="amd64", **json.loads(sys.argv[1]))
except LabError as error:
    print(error)
"""
ABSURD = 10_000_000  # MiB of memory


@pytest.fixture
def taken() -> Iterator[tuple[int, int]]:
    """A port of 127.0.0.1 on which another process really listens, and that process."""
    port = machine.free_run(machine.PUBLISHED) + 3
    with subprocess.Popen([sys.executable, "-c", LISTENER, str(port)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        yield port, child.pid
        child.kill()


def said(*, prefix: tuple[str, ...] = (), user: str | None = None, environment: dict[str, str] | None = None,
         python: str = sys.executable, **asked: object) -> str:  # fmt: skip
    """What check() says in a process of its own; empty when it has nothing to say."""
    question = {"port": 0, "publish": 0, "memory": 128, "building": False, **asked}
    done = subprocess.run([*prefix, python, "-c", CHECK, json.dumps(question)], cwd=TREE, text=True,
                          capture_output=True, user=user, env={**os.environ, **(environment or {})})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_said_when_the_lab_can_start() -> None:
    """A machine of 128 MiB on any free ports starts here: silence."""
    lacking = preflight.missing("amd64", building=False)
    assert lacking == [], f"this host lacks what `make lab` needs: {preflight.install_command(lacking)}"
    assert said() == ""


def test_a_taken_port_is_named_with_its_holder(taken: tuple[int, int]) -> None:
    """The port, the program and its process id; and a command with a free port."""
    port, pid = taken
    text = said(port=port)
    assert f"port {port} is taken by" in text and f"(process {pid})" in text
    other = re.search(r"make lab PORT=(\d+)", text)
    assert other and machine.is_free(int(other[1]))


def test_a_taken_port_among_the_published_ones_is_named(taken: tuple[int, int]) -> None:
    """All ten are looked at, and the one that is taken is named; the remedy is a row that is free."""
    port, pid = taken
    text = said(publish=port - 3)
    assert f"port {port} is taken by" in text and f"(process {pid})" in text
    other = re.search(r"make lab PUBLISH_PORT=(\d+)", text)
    assert other and all(machine.is_free(int(other[1]) + i) for i in range(machine.PUBLISHED))


def test_without_ss_a_taken_port_is_still_said(taken: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool that names the holder is not needed to say that the port is taken."""
    monkeypatch.setattr(preflight, "ADMIN", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "iproute2" in preflight.ports(taken[0], 0)[0].why


def test_a_port_that_is_only_lingering_is_free() -> None:
    """A connection that has just ended leaves its port in TIME_WAIT, which stops nobody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    assert machine.is_free(port)


def test_too_little_memory_is_said_with_what_fits() -> None:
    """What was asked, what there is, and a number that would fit."""
    text = said(memory=ABSURD)
    assert f"takes {ABSURD} MiB" in text
    fitting = re.search(r"make lab MEMORY=(\d+)", text)
    assert fitting and int(fitting[1]) < preflight.available_memory() + 512


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--memory", "10", "'10' is too little: 1024 (MiB) or more"),
        ("--memory", "2g", "'2g' is too little"),
        ("--cpus", "0", "1 to 64"),
        ("--port", "80", "1024 to 65535"),
    ],
)
def test_numbers_that_no_machine_can_have_are_refused(option: str, value: str, words: str, tmp_path: Path) -> None:
    """Before an image is built for them: the value, and which ones there are; nothing is written."""
    environment = {**os.environ, "LABKIT_CACHE": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-P", "-m", "labkit", "lab", "up", option, value], cwd=TREE, text=True,
                          env=environment, capture_output=True)  # fmt: skip
    assert done.returncode == 2 and words in done.stderr and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_available_memory_is_the_kernels_own_number() -> None:
    """The oracle is free(1)."""
    line = subprocess.run(["free", "-m"], capture_output=True, text=True, check=True).stdout.splitlines()[1]
    assert abs(preflight.available_memory() - int(line.split()[-1])) < 500


@pytest.mark.parametrize(("variable", "building"), [("LABKIT_CACHE", True), ("XDG_STATE_HOME", False)])
def test_too_little_disk_is_said_with_the_folder(variable: str, building: bool, tmp_path: Path) -> None:
    """A real file system of 16 MB: the folder, what it needs, what is free, and how to use another."""
    script = f'mount -t tmpfs -o size=16m none {tmp_path} && exec "$@"'
    text = said(prefix=("unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", script, "sh"), building=building,
                environment={variable: f"{tmp_path}/deep/folder"})  # fmt: skip
    assert f"{tmp_path}/deep/folder" in text
    assert re.search(r"needs \d+ MB of disk and 1[67] MB are free", text)
    assert f"{variable}=FOLDER make lab" in text


def test_a_missing_tool_is_said_with_the_one_command(tmp_path: Path) -> None:
    """With an empty PATH every tool that lies in no administrator's folder is missing: its package is named."""
    text = said(environment={"PATH": str(tmp_path)}, building=True)
    assert "missing here: qemu-system-x86, qemu-utils, openssh-client, util-linux" in text
    assert re.search(r"sudo apt-get install --no-install-recommends .*\bmmdebstrap\b", text)


def test_running_needs_fewer_tools_than_building(tmp_path: Path) -> None:
    """Once the image is there, what builds it is not asked for."""
    assert "mmdebstrap" not in said(environment={"PATH": str(tmp_path)}, building=False)


def test_everything_is_said_at_once(taken: tuple[int, int], tmp_path: Path) -> None:
    """A taken port, too little memory and a missing tool are one error with three remedies."""
    text = said(port=taken[0], memory=ABSURD, environment={"PATH": str(tmp_path)})
    assert text.count("the lab cannot start") == 1
    for word in (f"port {taken[0]} is taken", "MiB are available", "missing here: ", "make lab PORT=", "sudo apt-get"):
        assert word in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who has no ids")
def test_a_user_without_subordinate_ids_is_told_the_command() -> None:
    """nobody has none: building the image would fail, so usermod is named first."""
    name = pwd.getpwuid(65534).pw_name
    python = "/usr/bin/python3"  # this one may lie in root's home
    if subprocess.run(
        [python, "-c", "import labkit.lab.preflight"], cwd=TREE, user=name, capture_output=True
    ).returncode:
        pytest.skip("an ordinary user cannot read this checkout")
    text = said(user=name, python=python, building=True, environment={"XDG_STATE_HOME": "/tmp", "LABKIT_CACHE": "/tmp"})
    assert f"{name} has no 65536 subordinate ids in /etc/subuid" in text
    assert "sudo usermod --add-subuids" in text


def test_admin_tools_are_found_by_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's PATH comes first, and /usr/sbin behind it, once."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    preflight.find_admin_tools()
    preflight.find_admin_tools()
    assert os.environ["PATH"] == "/usr/bin:/bin:/usr/sbin:/sbin"


def test_apts_own_words_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an installation fails, what apt-get said, and the command to repeat by hand."""
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho 'E: no route to the archive' >&2; exit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(LabError) as raised:
        preflight.install(["qemu-utils"], lambda text: None)
    assert "E: no route to the archive" in str(raised.value)
    assert "apt-get install --no-install-recommends qemu-utils" in str(raised.value)


RELEASES = {
    "debian": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n',
    "ubuntu": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nID=ubuntu\nID_LIKE=debian\n',
    "mint": 'PRETTY_NAME="Linux Mint 22"\nID=linuxmint\nID_LIKE="ubuntu debian"\n',
    "fedora": 'PRETTY_NAME="Fedora Linux 41"\nID=fedora\n',
    "rhel": 'PRETTY_NAME="AlmaLinux 9.5"\nID="almalinux"\nID_LIKE="rhel centos fedora"\n',
    "arch": 'PRETTY_NAME="Arch Linux"\nID=arch\n',
}


@pytest.mark.parametrize("name", ["debian", "ubuntu", "mint"])
def test_debian_and_its_kin_can_start_the_lab(name: str, tmp_path: Path) -> None:
    """Silence and status 0."""
    (tmp_path / "os-release").write_text(RELEASES[name])
    done = subprocess.run(["sh", CAN_LAB, "Linux", tmp_path / "os-release"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("system", "name", "called"),
    [
        ("Linux", "fedora", "Fedora Linux 41"),
        ("Linux", "rhel", "AlmaLinux 9.5"),
        ("Linux", "arch", "Arch Linux"),
        ("Darwin", "", "macOS"),
        ("MINGW64_NT-10.0", "", "Windows"),
        ("FreeBSD", "", "FreeBSD"),
    ],
)
def test_elsewhere_vagrant_up_is_said_at_once(system: str, name: str, called: str, tmp_path: Path) -> None:
    """On another system the script, and labkit with it, names the system and says `vagrant up`."""
    release = tmp_path / "os-release"
    if name:
        release.write_text(RELEASES[name])
    done = subprocess.run(["sh", CAN_LAB, system, release], capture_output=True, text=True)
    assert done.returncode == 1
    assert called in done.stderr and "next: vagrant up" in done.stderr
    with pytest.raises(LabError) as raised:
        preflight.platform(str(release), system)
    assert called in str(raised.value) and "vagrant up" in str(raised.value)


def copied(tree: Path) -> Path:
    """The parts of the checkout from which the image is made, and a bit more."""
    for name in ("vagrant", "labkit/image", "labkit/lab"):
        shutil.copytree(TREE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def test_the_fingerprint_changes_with_each_input(tmp_path: Path) -> None:
    """One more byte in any of the files that go into the image gives it another name."""
    tree = copied(tmp_path)
    names = {image_build.fingerprint(tree, "amd64", "test")}
    files = image_build.inputs(tree, "test")
    assert len(files) > 15
    for path in files:
        path.write_bytes(path.read_bytes() + b"\n")
        names.add(image_build.fingerprint(tree, "amd64", "test"))
    assert len(names) == len(files) + 1


def test_the_fingerprint_changes_with_nothing_else(tmp_path: Path) -> None:
    """Not with the checkout's place, a file's time, a README, or code that does not go into the image."""
    tree = copied(tmp_path)
    before = image_build.fingerprint(tree, "amd64", "learner")
    assert before == image_build.fingerprint(TREE, "amd64", "learner")
    for path in image_build.inputs(tree, "learner"):
        os.utime(path, (1, 1))
    for name in ("vagrant/README.md", "labkit/lab/machine.py", "vagrant/packages-test.txt", "vagrant/host/address.sh"):
        (tree / name).write_text("changed")
    assert image_build.fingerprint(tree, "amd64", "learner") == before


def test_each_kind_of_image_has_a_fingerprint_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The architecture, the test overlay and the certificates that the host trusts go in too."""
    monkeypatch.setenv("LAB_CA", str(tmp_path))
    names = [image_build.fingerprint(TREE, *kind) for kind in (("amd64", "learner"), ("arm64", "learner"),
                                                               ("amd64", "test"))]  # fmt: skip
    (tmp_path / "company.crt").write_text("a certificate")
    names.append(image_build.fingerprint(TREE, "amd64", "learner"))
    assert len(set(names)) == 4


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("name", ["kvm", "tcg"])
def test_the_machine_is_reached_from_the_loopback_alone(arch: str, name: str, tmp_path: Path) -> None:
    """Every port on QEMU's command line is bound to 127.0.0.1, the network is user mode, and no secret is in it."""
    words = machine.command(Image(tmp_path / "image"), tmp_path / "state", Path("/some/a,b"), Accelerator(name, ""),
                            arch=arch, memory=512, cpus=1, forwards={22: 2222, 8888: 8889, 8080: 9090})  # fmt: skip
    text = "\n".join(words)
    assert re.findall(r"hostfwd=(.*?)(?=,|$)", text, re.MULTILINE) == [
        "tcp:127.0.0.1:2222-:22", "tcp:127.0.0.1:8889-:8888", "tcp:127.0.0.1:9090-:8080"
    ]  # fmt: skip
    assert words.count("-netdev") == 1 and "user,id=n0" in text
    assert f"lab.token,file={tmp_path}/state/token" in text
    assert "path=/some/a,,b," in text  # a comma of a folder's name ends no option
    assert not re.search(r"-vnc|-monitor\ntcp|-qmp|-gdb|-s\n", text)
