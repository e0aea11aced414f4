"""Options of `labkit run`, and the life of a container: ps, exec, logs, stop, rm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runtime_ground import IMAGE, Machine, in_a_machine, until

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine


def detached(machine: Machine, *arguments: str) -> str:
    """A container called box, in the background; its id."""
    done = machine.labkit("run", "-d", "--network", "none", "--name", "box", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_writes_go_to_the_upper_layer(machine: Machine) -> None:
    """A changed, a new and a removed file are in the container's own folder; the image's layers are as before."""

    def layers() -> dict[str, tuple[int, int, float]]:
        paths = (machine.data / "layers").rglob("*")
        return {str(p): (p.lstat().st_mode, p.lstat().st_size, p.lstat().st_mtime) for p in paths}

    machine.said("true")
    before = layers()
    identifier = detached(machine, IMAGE, "sh", "-c", "echo x >> /etc/passwd; echo new > /new; rm /etc/group; sleep 99")
    upper = machine.data / "containers" / identifier / "upper"
    until(lambda: (upper / "etc/group").exists())
    assert (upper / "new").read_text() == "new\n" and (upper / "etc/passwd").read_text().endswith("x\n")
    assert (upper / "etc/group").stat().st_rdev == 0  # a whiteout: character device 0:0
    machine.labkit("rm", "--force", "box")
    assert layers() == before and before
    assert machine.said("cat /new 2>&1; true").count("No such file") == 1


def test_a_volume_is_the_machines_folder(machine: Machine) -> None:
    """What is written inside is there outside, by the same path, and the other way round; a missing one is made."""
    folder = machine.folder / "volume"
    assert machine.said("echo in > /v/a; cat /v/a", "-v", f"{folder}:/v").strip() == "in"
    (folder / "b").write_text("out")
    assert machine.said("cat /v/b", "-v", f"{folder}:/v") == "out"
    (folder / "file").write_text("one file")
    assert machine.said("cat /etc/one", "-v", f"{folder}/file:/etc/one:ro") == "one file"


def test_a_read_only_volume_refuses_writes_below_too(machine: Machine) -> None:
    """:ro covers the folder and a file system mounted inside it; nothing changes outside."""
    folder = machine.folder / "readonly"
    (folder / "deeper").mkdir(parents=True)
    machine.sh("mount", "-t", "tmpfs", "deep", str(folder / "deeper"))
    try:
        done = machine.run("-v", f"{folder}:/v:ro", IMAGE, "sh", "-c", "touch /v/x; touch /v/deeper/x; rmdir /v/deeper")
        assert done.stderr.count("Read-only file system") >= 2, done.stderr
        assert machine.sh("touch", str(folder / "deeper/y")).returncode == 0
        assert machine.sh("ls", str(folder / "deeper")).stdout == "y\n"
    finally:
        machine.sh("umount", str(folder / "deeper"))
    assert os.listdir(folder) == ["deeper"]


def test_a_volume_through_the_images_symlinks_stays_inside(machine: Machine) -> None:
    """A target that goes through .. or a link of the image is resolved beneath the container's root."""
    folder = machine.folder / "bent"
    folder.mkdir()
    (folder / "mark").write_text("m")
    assert machine.said("cat /bin/x/mark", "-v", f"{folder}:/bin/x") == "m"  # /bin is a link to usr/bin
    assert machine.said("cat /y/mark", "-v", f"{folder}:/../../../y") == "m"
    assert not Path("/y").exists()


@pytest.mark.parametrize(
    ("options", "script", "said"),
    [
        (["-e", "A=1", "--env", "B=x=y"], "echo $A $B", "1 x=y"),
        (["-e", "PATH=/bin"], "echo $PATH", "/bin"),
        (["-e", "CALLERS"], "echo [$CALLERS]", "[from outside]"),
        (["-e", "NOT_SET_ANYWHERE"], "echo ${NOT_SET_ANYWHERE-unset}", "unset"),
        ([], "echo [$CALLERS] $HOME", "[] /root"),
        (["-u", "nobody"], "id -u; id -g; echo $HOME", "65534 65534 /"),
        (["-u", "1234:5"], "id -u; id -g; id -G", "1234 5 5"),
        (["-u", "www-data"], "id -un; id -gn; touch /tmp/x && stat -c %u /tmp/x", "www-data www-data 33"),
        (["-w", "/new/folder"], "pwd", "/new/folder"),
        (["-w", "/etc"], "cat hostname | wc -l", "1"),
    ],
)
def test_environment_user_and_folder(machine: Machine, options: list[str], script: str, said: str) -> None:
    """--env (NAME alone takes the caller's value), --user by name and number, --workdir made when missing."""
    environment = {**machine.environment, "CALLERS": "from outside"}
    assert machine.said(script, *options, env=environment).split() == said.split()


def test_the_entry_point(machine: Machine) -> None:
    """--entrypoint replaces the program, what follows the image are its arguments; options there are not ours."""
    assert machine.run("--entrypoint", "echo", IMAGE, "--rm", "-d", "x").stdout == "--rm -d x\n"
    assert machine.run(IMAGE, "echo", "--name", "y").stdout == "--name y\n"


def test_the_callers_umask_and_streams_do_not_matter(machine: Machine) -> None:
    """Under umask 077 another user still reads /etc/hosts and opens /dev/stdout by its name."""
    words = ["run", "--rm", "--network", "none", "-u", "nobody", IMAGE, "sh", "-c"]
    script = "cat /etc/hosts > /dev/stdout; umask; ls -ld / | cut -c1-10"
    done = machine.sh("sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "labkit", *words, script)
    assert "localhost" in done.stdout and done.stdout.split()[-2:] == ["0022", "drwxr-xr-x"], done.stderr


def test_ps_tells_what_runs_and_what_has_ended(machine: Machine) -> None:
    """Running ones alone; --all the ended too with their status; --rm leaves no line."""
    identifier = detached(machine, IMAGE, "sleep", "99")
    machine.labkit("run", "--network", "none", "--name", "ended", IMAGE, "sh", "-c", "exit 5")
    machine.run("--name", "removed", IMAGE, "true")
    plain, everything = machine.labkit("ps").stdout, machine.labkit("ps", "--all").stdout
    assert identifier[:12] in plain and "box" in plain and "running" in plain and "ended" not in plain
    assert re.search(r"ended +\S+busybox\S* .*ended \(5\)", everything) and "removed" not in everything
    assert machine.labkit("ps", "-q").stdout.split() == [identifier[:12]]
    (pid,) = [state["pid"] for state in machine.states() if state["name"] == "box"]
    assert machine.sh("cat", f"/proc/{pid}/comm").stdout == "labkit-init\n"
    assert machine.labkit("rm", "--force", "box", "ended").stdout == "box\nended\n"
    assert machine.states() == []


def test_exec_stands_in_the_containers_namespaces_and_cgroup(machine: Machine) -> None:
    """Each namespace and the cgroup are those of process 1; streams and status pass through; so do env and user."""
    detached(machine, "-e", "A=image", IMAGE, "sleep", "99")
    script = "for k in mnt uts ipc pid net cgroup user; do readlink /proc/self/ns/$k; done; cat /proc/self/cgroup"
    by_exec = machine.labkit("exec", "box", "sh", "-c", script).stdout
    pid = machine.pid_of("box")
    links = machine.sh(
        "sh", "-c", f"for k in mnt uts ipc pid net cgroup user; do readlink /proc/{pid}/ns/$k; done"
    ).stdout
    assert by_exec.startswith(links) and "0::/\n" in by_exec
    assert machine.labkit("exec", "box", "sh", "-c", "cat; exit 9", input="through").stdout == "through"
    assert machine.labkit("exec", "box", "sh", "-c", "exit 9").returncode == 9
    assert machine.labkit("exec", "box", "no-such-program").returncode == 127
    assert machine.labkit("exec", "box", "/etc/passwd").returncode == 126
    said = machine.labkit(
        "exec", "-e", "B=2", "-u", "nobody", "-w", "/tmp", "box", "sh", "-c", "echo $A $B $(id -u) $PWD"
    )
    assert said.stdout == "image 2 65534 /tmp\n"
    masks = [
        re.findall(r"Cap(?:Eff|Bnd).*", machine.labkit("exec", "box", "cat", f"/proc/{who}/status").stdout)
        for who in ("self", "2")
    ]
    assert masks[0] == masks[1]
    machine.labkit("rm", "--force", "box")


def test_a_command_run_by_exec_ends_with_the_container(machine: Machine) -> None:
    """137, as for everything that the end of process 1 takes along."""
    detached(machine, IMAGE, "sleep", "99")
    words = [sys.executable, "-m", "labkit", "exec", "box", "sleep", "50"]
    with subprocess.Popen(machine.words(*words), env=machine.environment, stdin=subprocess.DEVNULL) as running:
        until(lambda: "sleep 50" in machine.labkit("exec", "box", "ps").stdout)
        machine.labkit("stop", "--time", "1", "box")
        assert running.wait(timeout=20) == 137
    machine.labkit("rm", "box")


def test_logs_are_what_it_printed(machine: Machine) -> None:
    """Both streams of a detached container, in order, while it runs and after its end."""
    detached(machine, IMAGE, "sh", "-c", "echo one; echo two >&2; sleep 0.3; echo three")
    until(lambda: machine.labkit("logs", "box").stdout.startswith("one\ntwo\n"))
    until(lambda: machine.states()[0]["status"] == "stopped")
    assert machine.labkit("logs", "box").stdout == "one\ntwo\nthree\n"
    machine.labkit("rm", "box")


def test_stop_is_polite_first(machine: Machine) -> None:
    """SIGTERM ends what listens to it at once with its own status; what does not is killed after the patience."""
    detached(machine, IMAGE, "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    started = time.monotonic()
    assert machine.labkit("stop", "box").returncode == 0 and time.monotonic() - started < 5
    assert [state["exitCode"] for state in machine.states()] == [3]
    machine.labkit("rm", "box")
    detached(machine, IMAGE, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    machine.labkit("stop", "--time", "0.5", "box")
    assert [state["exitCode"] for state in machine.states()] == [137]
    assert machine.labkit("stop", "box").returncode == 0  # twice is fine
    machine.labkit("rm", "box")


def test_ids_may_be_shortened(machine: Machine) -> None:
    """The first digits of the id do for a name."""
    identifier = detached(machine, IMAGE, "sleep", "99")
    assert machine.labkit("exec", identifier[:6], "echo", "here").stdout == "here\n"
    assert machine.labkit("rm", "--force", identifier[:8]).returncode == 0


def test_the_bridge_gives_an_address_and_takes_it_back(machine: Machine) -> None:
    """eth0 up with the address that ps knows, and its own name in /etc/hosts; gone afterwards (the census)."""
    machine.labkit("run", "-d", "--name", "box", IMAGE, "sleep", "99")
    (state,) = machine.states()
    said = machine.labkit(
        "exec", "box", "sh", "-c", "ip -4 addr show eth0; cat /etc/hosts; ping -c1 -W5 localhost"
    ).stdout
    assert f"inet {state['address']}/" in said and state["address"] in said.partition("localhost")[2]
    machine.labkit("rm", "--force", "box")
