"""What a container cannot see and cannot do, looked at from inside and from outside."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from runtime_ground import IMAGE, Machine, in_a_machine

from labkit.runtime import defaults
from labkit.runtime.files import devices

NODES = [str(one["path"]).removeprefix("/dev/") for one in devices.DEFAULT]
pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine

KINDS = ["mnt", "uts", "ipc", "pid", "net", "cgroup"]
# Docker's fourteen as the kernel numbers them (capability.h): written out, not taken from our tables.
DOCKER_MASK = 0x00000000A80425FB


def test_each_namespace_is_another_than_the_machines(machine: Machine) -> None:
    """Mount, uts, ipc, pid, net and cgroup differ, user and time are the machine's; lsns lists the same."""
    machine.labkit("run", "-d", "--network", "none", "--name", "box", IMAGE, "sleep", "100")
    pid = machine.pid_of("box")
    listed = json.loads(machine.sh("lsns", "-J", "-p", str(pid), "-o", "TYPE,NS").stdout)["namespaces"]
    theirs = {entry["type"]: int(entry["ns"]) for entry in listed}
    links = machine.sh("sh", "-c", f"cd /proc/{pid}/ns; readlink {' '.join(KINDS)} user time").stdout
    own = machine.sh("sh", "-c", f"cd /proc/self/ns; readlink {' '.join(KINDS)} user time").stdout
    machine.labkit("rm", "--force", "box")
    seen, mine = (dict(re.findall(r"(\w+):\[(\d+)\]", text)) for text in (links, own))
    assert {kind for kind in seen if seen[kind] != mine[kind]} == set(KINDS)
    assert {kind: int(number) for kind, number in seen.items()} == theirs


def test_host_network_is_the_machines_and_the_rest_is_not(machine: Machine) -> None:
    """--network host shares the network namespace alone, and /sys shows its devices, read-only all the same."""
    script = (
        "cd /proc/self/ns; readlink net; readlink pid; hostname; ls /sys/class/net; grep -c 'sysfs ro' /proc/mounts"
    )
    net, pid, name, *links, frozen = machine.said(script, "--network", "host").split()
    assert net == machine.sh("readlink", "/proc/self/ns/net").stdout.strip()
    assert pid != machine.sh("readlink", "/proc/self/ns/pid").stdout.strip()
    assert name == machine.sh("hostname").stdout.strip()
    assert links == machine.sh("ls", "/sys/class/net").stdout.split() and frozen == "1"


def test_the_host_name_is_its_own(machine: Machine) -> None:
    """--hostname, or the first twelve digits of the id; the machine keeps its own."""
    before = machine.sh("hostname").stdout
    assert machine.said("hostname; cat /etc/hostname; grep -c box /etc/hosts", "--hostname", "box").split() == [
        *("box", "box", "1")
    ]
    assert re.fullmatch(r"[0-9a-f]{12}\n", machine.said("hostname"))
    assert machine.sh("hostname").stdout == before


def test_proc_shows_only_its_own_processes(machine: Machine) -> None:
    """The init, the shell, and nobody else."""
    assert machine.said("cd /proc; echo [0-9]*; cat 1/comm").splitlines() == ["1 2", "labkit-init"]


@pytest.mark.parametrize("path", defaults.MASKED_PATHS)
def test_masked_paths_tell_nothing(machine: Machine, path: str) -> None:
    """Each is absent on this kernel, an empty read-only folder, or a file without a byte."""
    there = machine.sh("test", "-e", path).returncode == 0
    script = f"if [ -d {path} ]; then ls -A {path}; touch {path}/x 2>/dev/null && echo written; "
    script += f"elif [ -e {path} ]; then head -c 1 {path} | wc -c; else echo none; fi; true"
    said = machine.said(script).strip()
    assert said == ("none" if not there else said) and said in ("", "0", "none")


def test_a_masked_path_would_tell_something_without_the_mask(machine: Machine) -> None:
    """The check above can fail: on the machine itself some of these files do have bytes."""
    full = [path for path in defaults.MASKED_PATHS if machine.sh("head", "-c", "1", path).stdout]
    assert full


@pytest.mark.parametrize("path", ["/proc/sys/kernel/hostname", "/proc/sys/vm/swappiness", "/proc/sysrq-trigger"])
def test_kernel_settings_refuse_writes(machine: Machine, path: str) -> None:
    """Read-only file system, for root inside as well."""
    done = machine.run(IMAGE, "sh", "-c", f"[ -e {path} ] && echo 1 > {path}")
    if machine.sh("test", "-e", path).returncode:
        assert done.returncode == 1
    else:
        assert done.returncode and "Read-only file system" in done.stderr


@pytest.mark.parametrize("path", ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/sys", "/sys/fs/cgroup"])
def test_the_trees_of_the_kernel_are_read_only_mounts(machine: Machine, path: str) -> None:
    """mountinfo inside says ro for each that this kernel has."""
    lines = [line.split() for line in machine.said("cat /proc/self/mountinfo").splitlines()]
    flags = [fields[5].split(",") for fields in lines if fields[4] == path]
    assert flags or machine.sh("test", "-e", path).returncode
    assert all("ro" in one and "nosuid" in one for one in flags)


def test_sys_refuses_writes(machine: Machine) -> None:
    """Neither a cgroup nor a device setting can be changed from inside."""
    for word in ("mkdir /sys/fs/cgroup/x", "echo 1 > /sys/fs/cgroup/cgroup.procs", "echo 1 > /sys/kernel/profiling"):
        done = machine.run(IMAGE, "sh", "-c", word)
        assert done.returncode and "Read-only file system" in done.stderr, word


def test_it_sees_its_own_cgroup_as_the_root(machine: Machine) -> None:
    """/proc/self/cgroup says 0::/, and /sys/fs/cgroup holds its own processes."""
    script = "grep '^0:' /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | wc -l; ls -d /sys/fs/cgroup/*/ 2>&1"
    said = machine.said(script + "; true").splitlines()
    assert said[0] == "0::/" and int(said[1]) >= 2 and "No such file" in said[2]


def test_the_device_nodes_are_six_and_work(machine: Machine) -> None:
    """null, zero, full, random, urandom, tty with their numbers, the links, and nothing of the machine's."""
    said = machine.said("cd /dev; ls; stat -c '%n %t:%T' null zero full random urandom tty; head -c 3 zero | wc -c")
    names, rest = said.split("core", 1)[0], said
    assert "null 1:3" in rest and "zero 1:5" in rest and "full 1:7" in rest and "tty 5:0" in rest
    assert "random 1:8" in rest and "urandom 1:9" in rest and rest.endswith("3\n")
    listing = set(rest.splitlines()[: rest.splitlines().index("null 1:3")])
    links = {name for name in devices.LINKS if name != "core" or Path("/proc/kcore").exists()}
    assert listing == {*NODES, *links, "mqueue", "pts", "shm"}, names


@pytest.mark.parametrize("folder", ["/", "/dev", "/tmp", "/dev/shm"])
def test_a_made_up_device_opens_nothing(machine: Machine, folder: str) -> None:
    """mknod of the machine's memory (1:1) and of null succeeds, opening is refused wherever it lies."""
    script = f"cd {folder}; mknod mem c 1 1 && mknod nil c 1 3 && ls nil mem | wc -l; head -c 1 mem; echo > nil"
    done = machine.run(IMAGE, "sh", "-c", script)
    assert done.stdout == "2\n"
    assert done.stderr.count("Permission denied") == 2, done.stderr


def test_a_made_up_device_on_a_volume_opens_nothing(machine: Machine) -> None:
    """Volumes are mounted nodev too."""
    folder = machine.folder / "devices"
    folder.mkdir()
    done = machine.run("-v", f"{folder}:/v", IMAGE, "sh", "-c", "mknod /v/nil c 1 3; echo > /v/nil")
    assert "Permission denied" in done.stderr


def sets(text: str) -> dict[str, int]:
    """The Cap lines of a status file."""
    return {key: int(value, 16) for key, value in re.findall(r"Cap(\w+):\s+([0-9a-f]+)", text)}


def test_root_has_dockers_fourteen_capabilities(machine: Machine) -> None:
    """Permitted, effective and bounding are exactly these, ambient and inheritable are empty; capsh agrees."""
    text = machine.said("cat /proc/self/status")
    assert sets(text) == {"Inh": 0, "Prm": DOCKER_MASK, "Eff": DOCKER_MASK, "Bnd": DOCKER_MASK, "Amb": 0}
    decoded = machine.sh("capsh", f"--decode={DOCKER_MASK:x}").stdout.partition("=")[2].strip().split(",")
    assert sorted(decoded) == sorted(name.lower() for name in defaults.CAPABILITIES) and len(decoded) == 14


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "ALL", "--cap-add", "net_admin"], 1 << 12),
        (["--cap-drop", "CAP_CHOWN"], DOCKER_MASK & ~1),
        (["--cap-add", "SYS_ADMIN"], DOCKER_MASK | 1 << 21),
    ],
)
def test_capabilities_can_be_added_and_dropped(machine: Machine, options: list[str], mask: int) -> None:
    """The bounding and the effective set are the ones asked for."""
    found = sets(machine.said("cat /proc/self/status", *options))
    assert (found["Eff"], found["Bnd"]) == (mask, mask)


def test_another_user_has_none(machine: Machine) -> None:
    """With --user the effective set is empty; the bounding set stays, for set-user-ID programs."""
    found = sets(machine.said("cat /proc/self/status", "--user", "nobody"))
    assert (found["Eff"], found["Prm"], found["Bnd"]) == (0, 0, DOCKER_MASK)


def test_what_a_dropped_capability_did_fails(machine: Machine) -> None:
    """chown works as root, and not without CAP_CHOWN; mount never does."""
    assert machine.run(IMAGE, "chown", "33", "/etc/passwd").returncode == 0
    assert "not permitted" in machine.run("--cap-drop", "CHOWN", IMAGE, "chown", "33", "/etc/passwd").stderr
    assert machine.run(IMAGE, "mount", "-t", "tmpfs", "x", "/tmp").returncode != 0


def test_no_new_privileges_is_dockers_default_and_can_be_set(machine: Machine) -> None:
    """0 when nobody says otherwise, 1 with --security-opt no-new-privileges."""
    line = "grep NoNewPrivs /proc/self/status"
    assert machine.said(line).split()[1] == "0"
    assert machine.said(line, "--security-opt", "no-new-privileges").split()[1] == "1"


def test_the_old_root_cannot_be_reached(machine: Machine) -> None:
    """No mount point of the machine is left inside, .. ends at /, and a file of the machine is nowhere."""
    secret = machine.folder / "secret-of-the-machine"
    secret.write_text("x")
    lines = [line.split() for line in machine.said("cat /proc/self/mountinfo").splitlines()]
    places = {fields[4] for fields in lines}
    ours = {str(mount["destination"]) for mount in defaults.MOUNTS} | {f"/dev/{name}" for name in NODES}
    ours |= {"/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    assert places <= ours | set(defaults.MASKED_PATHS) | set(defaults.READONLY_PATHS)
    # A mount of the machine's own disk shows only our three files, never a folder of it.
    disk = [fields[3] for fields in lines if "etc" in fields[4]]
    assert len(disk) == 3 and all(re.search(r"/containers/[0-9a-f]{64}/etc/\w+", path) for path in disk)
    assert machine.said("cd ../../../../../..; pwd; ls -a / | head -c 0; [ /proc/1/root/x ] && pwd").split() == [
        "/",
        "/",
    ]
    assert machine.said(f"find / -xdev -name {secret.name} | wc -l; ls {secret} 2>&1 | wc -l").split() == ["0", "1"]


def test_mounts_made_inside_do_not_reach_the_machine(machine: Machine) -> None:
    """Even with CAP_SYS_ADMIN, a mount inside is not in the machine's table."""
    script = "mount -t tmpfs inner /tmp && grep -c inner /proc/self/mountinfo && sleep 100"
    process = machine.start("--network", "none", "--name", "box", "--cap-add", "SYS_ADMIN", IMAGE, "sh", "-c", script)
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    assert " inner " not in machine.sh("cat", "/proc/self/mountinfo").stdout
    inside = f"/proc/{machine.pid_of('box')}/mountinfo"
    assert " inner " in machine.sh("cat", inside).stdout  # the check above can fail
    machine.labkit("rm", "--force", "box")
    process.communicate(timeout=20)


def test_no_descriptor_leaks_in(machine: Machine) -> None:
    """The command has 0, 1, 2 and the folder it reads; init, seen from outside, has /dev/null three times."""
    assert machine.said("exec ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    machine.labkit("run", "-d", "--network", "none", "--name", "box", IMAGE, "sleep", "100")
    pid = machine.pid_of("box")
    init = machine.sh("sh", "-c", f"cd /proc/{pid}/fd; for n in *; do readlink $n; done").stdout.split()
    by_exec = machine.labkit("exec", "box", "ls", "/proc/self/fd").stdout.split()
    machine.labkit("rm", "--force", "box")
    assert init == ["/dev/null"] * 3
    assert by_exec == ["0", "1", "2", "3"]


def test_an_open_descriptor_of_the_caller_stays_outside(machine: Machine) -> None:
    """A shell that has files open as 5 and 9 does not hand them to the container."""
    words = 'exec 5</etc/passwd 9<"/"; exec "$@"'
    done = machine.sh(
        "sh",
        "-c",
        words,
        "sh",
        sys.executable,
        "-m",
        "labkit",
        "run",
        "--rm",
        "--network",
        "none",
        IMAGE,
        "ls",
        "/proc/self/fd",
    )
    assert done.stdout.split() == ["0", "1", "2", "3"], done.stderr


def test_the_init_is_closed_to_the_container(machine: Machine) -> None:
    """Its program, memory, root and descriptors, which are the machine's, cannot be read; it keeps CAP_KILL alone."""
    script = "for f in exe root cwd fd environ mem; do cat /proc/1/$f/ 2>&1; ls /proc/1/$f/ 2>&1; done; true"
    said = machine.said(script)
    assert said.count("Permission denied") >= 6, said
    assert sets(machine.said("cat /proc/1/status"))["Eff"] == 1 << 5
