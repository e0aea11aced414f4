"""The lab's doors: who gets in from this host, over which port, and nobody else."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, LABKIT, TREE, Lab

from labkit.lab import accelerator, machine, state
from labkit.lab.image_build import Image

IMAGE = "localhost:5000/nginx"


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of each TCP socket of a process that listens; ss is the oracle.

    UDP is left out: ss shows there the sockets by which the guest asks a name server and waits for its answer.
    """
    said = subprocess.run(["ss", "-Hlntp"], capture_output=True, text=True, check=True).stdout
    places = [line.split()[3].rpartition(":") for line in said.splitlines() if f"pid={pid}," in line]
    return {(address, int(port)) for address, _, port in places}


def test_the_machine_listens_on_the_loopback_alone(lab: Lab) -> None:
    """sshd, JupyterLab and the ten published ports, all on 127.0.0.1, and nothing else."""
    first = lab.record.publish
    expected = {lab.record.ssh, lab.record.port, *range(first, first + machine.PUBLISHED)}
    assert listening(lab.record.pid) == {("127.0.0.1", port) for port in expected}


def test_the_token_is_on_no_command_line(lab: Lab) -> None:
    """What every user can read, QEMU's arguments, does not hold it; and the files that do are the owner's alone."""
    assert lab.record.token.encode() not in Path(f"/proc/{lab.record.pid}/cmdline").read_bytes()
    assert state.folder().stat().st_mode & 0o077 == 0
    assert (state.folder() / "key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", ["/api/contents", "/api/kernels", "/api/terminals", "/lab"])
def test_jupyterlab_asks_for_the_token(lab: Lab, path: str) -> None:
    """Without it, and with a wrong one, no file, no kernel and no terminal is given."""
    for token in (None, "", secrets.token_hex(16)):
        status, body = lab.ask(path, token=token)
        assert status in (401, 403) or b"password" in body.lower(), (token, status, body[:200])
    # The login page is what /lab shows; with the token it is the application.
    assert lab.ask(path, token=lab.record.token)[0] == 200


def test_no_file_is_written_without_the_token(lab: Lab) -> None:
    """A PUT without the token is refused, and the checkout is as it was."""
    name = f"burglar-{secrets.token_hex(4)}.txt"
    body = {"type": "file", "format": "text", "content": "x"}
    assert lab.ask(f"/api/contents/{name}", body=body, method="PUT")[0] == 403
    assert not (TREE / name).exists()


def test_a_second_start_finds_the_running_lab(lab: Lab) -> None:
    """`labkit lab up` again: the same address within seconds, and the same machine."""
    began = time.monotonic()
    done = subprocess.run([*LABKIT, "lab", "up"], cwd=TREE, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 10
    assert f"http://127.0.0.1:{lab.record.port}/lab" in done.stdout
    assert f"token={lab.record.token}" in done.stdout
    assert state.running() == lab.record


def test_another_checkouts_lab_is_named_when_it_holds_the_port(lab: Lab) -> None:
    """A second lab on the same port is refused before anything starts, and told whose lab is there."""
    environment = {**ENVIRONMENT, "LAB_NAME": f"second-{secrets.token_hex(3)}"}
    words = [*LABKIT, "lab", "up", "--port", str(lab.record.port), "--publish-port", "0"]
    done = subprocess.run(words, cwd=TREE, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"port {lab.record.port} is taken by the lab of another checkout ({TREE})" in done.stderr
    assert re.search(r"make lab PORT=\d+", done.stderr)


def fetched(port: int) -> bytes | None:
    """The page on a port of this host's loopback; None when there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            return bytes(answer.read())
    except (OSError, urllib.error.URLError):
        return None


def test_a_published_nginx_serves_its_page_on_this_host(lab: Lab) -> None:
    """What `labkit run -p 8080:80` publishes opens on this host's 127.0.0.1, with its limits set, and goes with it."""
    port = lab.record.publish + 9  # 8089 in the machine: others may use the first ones
    name = f"page-{secrets.token_hex(4)}"
    words = ["labkit", "run", "-d", "--name", name, "--memory", "256m", "--cpus", "1", "--pids-limit", "4096"]
    identity = lab.text(*words, "-p", "8089:80", IMAGE).strip()
    try:
        end = time.monotonic() + 60
        while (page := fetched(port)) is None and time.monotonic() < end:
            time.sleep(0.5)
        assert page is not None and b"nginx" in page
        group = lab.text("find", "/sys/fs/cgroup", "-type", "d", "-name", identity).strip()
        assert "nginx" in lab.text("sh", "-c", f"ps -o comm= -p $(paste -sd, {group}/cgroup.procs)")
        limits = lab.text("sh", "-c", f"cd {group} && cat memory.max cpu.max pids.max")
        assert limits == "268435456\n100000 100000\n4096\n"
    finally:
        lab.text("labkit", "stop", name)
        lab.run("labkit", "rm", name)
    assert fetched(port) is None
    assert name not in lab.text("labkit", "ps", "-a")


def test_the_machines_own_kernel_proves_an_accelerator(lab: Lab) -> None:
    """Under emulation the tiny boot gets to its end: so a hang under KVM is KVM's, not the proof's."""
    proof = accelerator.prove(Image(Path(lab.record.image)).kernel, accel="tcg", limit=120)
    assert proof.name == "tcg" and "ran under it in" in proof.why


def test_the_answer_about_kvm_comes_within_its_limit(lab: Lab) -> None:
    """Whatever /dev/kvm is here, the answer is there in time; kvm only when the kernel really ran."""
    began = time.monotonic()
    answer = accelerator.prove(Image(Path(lab.record.image)).kernel)
    assert time.monotonic() - began < accelerator.LIMIT + 3
    assert (answer.name == "kvm") == ("ran under it in" in answer.why)
    assert answer.name == lab.record.accelerator


def test_a_kernel_that_is_none_is_no_proof(lab: Lab, tmp_path: Path) -> None:
    """A file of zeros as the kernel: tcg, and QEMU's own words say why."""
    (tmp_path / "vmlinuz").write_bytes(bytes(5000))
    answer = accelerator.prove(tmp_path / "vmlinuz", accel="tcg", limit=5)
    assert answer.name == "tcg" and "ran under it" not in answer.why
    assert sys.platform == "linux" and len(answer.why) > 20
