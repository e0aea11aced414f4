"""What cannot be done is said once, clearly, with a status that is not zero, and leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from runtime_ground import IMAGE, Machine, in_a_machine

from labkit.kernel import cgroups

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine


def complaint(done: subprocess.CompletedProcess[str], status: int = 125) -> str:
    """The message, after its form is checked: what, why, next, no traceback, nothing on stdout."""
    assert done.returncode == status, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert done.stderr.count("labkit ") >= 1 and done.stderr.startswith("labkit "), done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("  ")]) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("detach", [[], ["--detach"]])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "256x"], ["--memory '256x'", "why:", "next:"]),
        (["--memory", "-5"], ["--memory", "next:"]),
        (["--memory", "1k"], ["--memory 1k", "why:", "next:"]),
        (["--memory", "256m", "--memory-swap", "128m"], ["--memory-swap 128m", "why:", "next:"]),
        (["--memory-swap", "1g"], ["--memory-swap needs --memory", "why:"]),
        (["--cpus", "0"], ["--cpus '0'", "why:", "next:"]),
        (["--cpus", "many"], ["--cpus 'many'", "why:", "next:"]),
        (["--cpus", "nan"], ["--cpus 'nan'", "why:", "next:"]),
        (["--pids-limit", "lots"], ["--pids-limit 'lots'", "next:"]),
        (["--network", "nowhere"], ["no network 'nowhere'", "next:"]),
        (["--volume", "/only-one-side"], ["--volume", "why:", "next:"]),
        (["--volume", "/a:relative"], ["--volume", "why:", "next:"]),
        (["--volume", "/a:/b:maybe"], ["'maybe' is not ro or rw", "next:"]),
        (["--volume", "/etc/passwd/below:/b"], ["/etc/passwd/below", "Not a directory"]),
        (["--cap-add", "FLY"], ["no capability 'FLY'", "next:"]),
        (["--name", "a/b"], ["'a/b' cannot be a container's name", "why:", "next:"]),
        (["--name", ""], ["'' cannot be a container's name", "why:", "next:"]),
        (["--user", "nobody-at-all"], ["no user 'nobody-at-all'", "why:"]),
        (["--hostname", "x" * 65], ["hostname is longer than 64 bytes", "why:"]),
        (["--publish", "80"], ["--publish"]),
        (["--publish", "8080:80"], ["--publish needs --network bridge", "why:"]),
        (["--no-such-option"], ["--no-such-option", "why:", "next:"]),
        (["--security-opt", "seccomp=x"], ["no-new-privileges", "next:"]),
    ],
)
def test_a_bad_option_is_named(machine: Machine, options: list[str], words: list[str], detach: list[str]) -> None:
    """Status 125; the option and its value are in the message; detached or not."""
    network = [] if options[0] in ("--network",) else ["--network", "none"]
    said = complaint(machine.labkit("run", *detach, *network, *options, IMAGE, "true"))
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize(
    "option", [["--memory", "256x"], ["--cpus", "0"], ["--network", "nowhere"], ["--publish", "x"]]
)
def test_a_bad_option_is_said_before_an_image_is_fetched(machine: Machine, option: list[str]) -> None:
    """Where nothing listens: the message is about the option, no registry is asked."""
    network = [] if option[0] in ("--network", "--publish") else ["--network", "none"]
    said = complaint(machine.labkit("run", *network, *option, "127.0.0.1:1/nothing", "true"))
    assert option[0].removeprefix("--") in said and "127.0.0.1:1" not in said


def test_no_image_and_no_command(machine: Machine) -> None:
    """`labkit run` alone, and an entry point taken away with no command in its place."""
    assert "IMAGE" in complaint(machine.labkit("run"))
    assert "COMMAND" in complaint(machine.labkit("exec", "box"))
    said = complaint(machine.run("--entrypoint", "", IMAGE))
    assert "no command" in said and "next:" in said


def test_an_image_that_is_not_here_and_a_registry_that_is_down(machine: Machine) -> None:
    """The registry's address and that nobody answers there are in the message."""
    if shutil.which("crane") is None:
        pytest.fail("crane is missing: sh vagrant/install-crane.sh (make test installs it)")
    said = complaint(machine.run("127.0.0.1:1/nothing", "true"))
    assert "127.0.0.1:1/nothing" in said and "refused" in said and "why:" in said and "next:" in said


def test_an_image_name_that_cannot_be_one(machine: Machine) -> None:
    """Said before any registry is asked."""
    said = complaint(machine.run("Not An Image", "true"))
    assert "Not An Image" in said and "next:" in said


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_name_in_use(machine: Machine, detach: list[str]) -> None:
    """The holder is named, and the way out; the holder goes on running."""
    machine.labkit("run", "-d", "--network", "none", "--name", "web", IMAGE, "sleep", "99")
    try:
        said = complaint(machine.run(*detach, "--name", "web", IMAGE, "true"))
        holder = machine.states()
        assert [state["status"] for state in holder] == ["running"]
        assert "'web' is taken" in said and holder[0]["id"][:12] in said and "labkit rm --force web" in said
    finally:
        machine.labkit("rm", "--force", "web")


@pytest.mark.parametrize(("option", "value"), [("memory", "256m"), ("cpus", "1"), ("pids-limit", "100")])
def test_a_missing_controller_is_named(machine: Machine, option: str, value: str) -> None:
    """Which option needs which controller, where the machine has it instead, and to use the lab's machine."""
    controller = {"memory": "memory", "cpus": "cpu", "pids-limit": "pids"}[option]
    if controller in cgroups.controllers(cgroups.root()):
        pytest.skip(f"this machine has the {controller} controller: nothing is missing here")
    said = complaint(machine.run(f"--{option}", value, IMAGE, "true"))
    assert f"--{option} needs the {controller} controller" in said
    assert "version 1 at /sys/fs/cgroup" in said and "labkit guest exec" in said


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_port_that_is_taken(machine: Machine, detach: list[str]) -> None:
    """By a program of the machine: the port is named, and the network that was made for it is gone again."""
    holder = subprocess.Popen(machine.words(*LISTEN), text=True)
    try:
        machine.sh("sh", "-c", "until ss -Hltn | grep -q :8088; do sleep 0.02; done")
        before = machine.census()
        said = complaint(machine.labkit("run", "--rm", *detach, "-p", "8088:80", IMAGE, "true"))
        assert "8088" in said and "next:" in said
        assert machine.census() == before
    finally:
        machine.sh("pkill", "-f", "create_server.*8088")
        holder.wait(timeout=20)


LISTEN = ["python3", "-c", "import socket, time; s = socket.create_server(('0.0.0.0', 8088)); time.sleep(60)"]


# The interpreter itself may lie where nobody may not read: everything is imported before.
AS_NOBODY = """
import os, sys
from labkit import cli
from labkit.runtime import commands, container, execute, run, upkeep
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--rm", "--network", "none", IMAGE, "true"],
        ["run", "-d", IMAGE, "true"],
        ["exec", "box", "true"],
        ["stop", "box"],
        ["rm", "box"],
        ["reset"],
    ],
)
def test_not_being_root(machine: Machine, words: list[str]) -> None:
    """Said at once, with the user's number and where one is root."""
    said = complaint(machine.sh(sys.executable, "-c", AS_NOBODY, *words))
    assert "root" in said and "user 65534" in said and "next:" in said


@pytest.mark.parametrize("verb", [["exec"], ["stop"], ["rm"], ["rm", "--force"], ["logs"]])
def test_a_container_that_does_not_exist(machine: Machine, verb: list[str]) -> None:
    """Named, with the containers that there are; status 1, as docker's."""
    command = ["true"] if verb == ["exec"] else []
    said = complaint(machine.labkit(*verb, "nobody", *command), status=1)
    assert "no container 'nobody'" in said and "why:" in said and "labkit ps --all" in said


def test_exec_and_rm_on_the_wrong_state(machine: Machine) -> None:
    """An ended container runs nothing; a running one is not removed without --force."""
    machine.labkit("run", "--network", "none", "--name", "box", IMAGE, "true")
    said = complaint(machine.labkit("exec", "box", "true"))
    assert "does not run" in said and "stopped" in said
    machine.labkit("rm", "box")
    machine.labkit("run", "-d", "--network", "none", "--name", "box", IMAGE, "sleep", "99")
    said = complaint(machine.labkit("rm", "box"), status=1)
    assert "is running" in said and "labkit stop box" in said
    machine.labkit("rm", "--force", "box")
