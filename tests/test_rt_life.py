"""labkit-runtime by its command line: the life of a container, what it is given, and what is left; beside runc."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rt_ground import SLEEP, Ground, ground, until
from rt_schema import problems

from labkit.kernel import cgroups, process

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

# What every runtime must give alike; the rest of /proc/self/status is numbers that differ from run to run.
FIELDS = ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd",
          "CapAmb", "NoNewPrivs", "Seccomp")  # fmt: skip


@pytest.fixture
def runtime() -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    with ground() as made:
        yield made


def test_a_program_runs_to_its_end(runtime: Ground) -> None:
    """run prints what it prints, ends with its status, and forgets it."""
    runtime.process("/usr/bin/sh", "-c", "echo $0 $$; exit 3", "arg")
    runtime.config["process"]["args"][3] = "arg"
    done = runtime("run", "one")
    assert (done.returncode, done.stdout, done.stderr) == (3, "arg 1\n", "")
    assert runtime.left() == []


def test_a_signal_shows_in_the_status(runtime: Ground) -> None:
    """128 and the signal, as runc says it."""
    runtime.process("/usr/bin/sh", "-c", "(sleep 0.1; kill -9 $$) & exec unshare -p sleep 100")
    runtime.process("/usr/bin/bash", "-c", "ulimit -t 1; while :; do :; done")
    assert runtime("run", "one").returncode == 128 + signal.SIGKILL


def test_what_the_program_finds_is_runcs(runtime: Ground) -> None:
    """User, sets, limits, environment, descriptors, names and score, one by one."""
    runtime.process("/usr/bin/sh", "-c", "cat /proc/self/status; echo --; cat /proc/self/limits; echo --; env | sort; "
                    "echo --; ls /proc/self/fd; hostname; cat /proc/self/oom_score_adj; pwd; ls /dev", cwd="/usr",
                    oomScoreAdj=100)  # fmt: skip
    runtime.config["process"]["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    runtime.config["hostname"] = "inner"
    ours, theirs = runtime("run", "one"), runtime.runc("run", f"rt-{uuid.uuid4().hex[:8]}")
    assert ours.returncode == theirs.returncode == 0, (ours.stderr, theirs.stderr)
    found = []
    for text in (ours.stdout, theirs.stdout):
        status, *rest = text.split("--\n")
        lines = dict(line.split(":\t", 1) for line in status.splitlines())
        found.append([{name: lines[name] for name in FIELDS}, *rest])
    # runc's init has ambient capabilities tried one by one; ours are those that could be raised: none here.
    assert found[0] == found[1]


def test_a_container_waits_until_it_is_started(runtime: Ground) -> None:
    """created, running, stopped, gone; each verb in its state only, as the specification orders them."""
    runtime.process("/usr/bin/sh", "-c", "echo ran >/out; exec sleep 1000")
    runtime("create", "one", "--pid-file", str(runtime.folder / "pid"), check=True)
    state = runtime.state("one")
    assert problems({key: state[key] for key in ("ociVersion", "id", "status", "pid", "bundle")}, "state") == []
    assert (state["status"], state["pid"]) == ("created", int((runtime.folder / "pid").read_text()))
    assert not (runtime.folder / "rootfs/out").exists()
    runtime("start", "one", check=True)
    until((runtime.folder / "rootfs/out").exists)
    assert runtime.state("one")["status"] == "running"
    for words, why in ((("start", "one"), "it is running"), (("delete", "one"), "it is running"),
                       (("create", "one"), "there is a container 'one' already"),
                       (("resume", "one"), "it is running")):  # fmt: skip
        done = runtime(*words)
        assert done.returncode == 1 and why in done.stderr, words
    runtime("kill", "one", "KILL", check=True)
    until(lambda: runtime.state("one")["status"] == "stopped")
    assert runtime.state("one")["pid"] == 0
    assert "is not running" in runtime("kill", "one").stderr
    runtime("delete", "one", check=True)
    assert runtime.left() == []
    assert "there is no container 'one'" in runtime("state", "one").stderr


def test_paused_means_that_nothing_moves(runtime: Ground) -> None:
    """pause and resume, as the kernel has them; a paused one can be killed."""
    runtime.process("/usr/bin/sh", "-c", "while :; do echo x >>/out; sleep 0.01; done")
    runtime("run", "--detach", "one", check=True)
    out = runtime.folder / "rootfs/out"
    until(out.exists)
    runtime("pause", "one", check=True)
    assert runtime.state("one")["status"] == "paused"
    size = out.stat().st_size
    time.sleep(0.1)
    assert out.stat().st_size == size
    runtime("resume", "one", check=True)
    until(lambda: out.stat().st_size > size)
    runtime("pause", "one", check=True)
    runtime("kill", "one", "9", check=True)
    until(lambda: runtime.state("one")["status"] == "stopped")


@pytest.mark.parametrize("words", [("one", "KILL"), ("--all", "one", "KILL"), ("--all", "one", "TERM")])
def test_who_forks_does_not_escape(runtime: Ground, words: tuple[str, ...]) -> None:
    """Without a pid namespace of its own KILL ends the whole cgroup, and --all reaches everybody with any signal."""
    runtime.kinds("network", "ipc", "uts", "mount")
    flees = runtime.folder / "rootfs/flees"
    flees.write_text("#!/usr/bin/sh\n/flees &\n")
    flees.chmod(0o755)
    runtime.process("/usr/bin/sh", "-c", "for one in 1 2 3 4 5 6 7 8; do /flees & done; exec sleep 1000")
    runtime("run", "-d", "one", check=True)
    cgroup = Path(json.loads((runtime.folder / "state/one/state.json").read_text())["cgroup"])
    until(lambda: len((cgroup / "cgroup.procs").read_text().split()) > 1)
    runtime("kill", *words, check=True)
    until(lambda: runtime.state("one")["status"] == "stopped")
    time.sleep(0.2)
    assert "populated 0" in (cgroup / "cgroup.events").read_text()


def test_exec_joins_everything(runtime: Ground) -> None:
    """The process of exec is in the container's namespaces and cgroup, with what was asked for it."""
    runtime.kinds("pid", "network", "ipc", "uts", "mount", "cgroup")
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    pid = runtime.state("one")["pid"]
    script = "for k in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$k; done; cat /proc/self/cgroup; "
    script += "echo $A $PWD; id -u"
    done = runtime("exec", "--cwd", "/usr", "--env", "A=b", "--user", "5:6", "one", "/usr/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    spaces = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts")]
    lines = done.stdout.splitlines()
    assert lines[:6] == spaces
    assert lines[-2:] == ["b /usr", "5"]
    assert "0::/" in lines
    assert runtime("exec", "one", "/usr/bin/sh", "-c", "exit 7").returncode == 7
    assert runtime("exec", "one", "/no/such").returncode == 127
    assert runtime("exec", "one", "/etc").returncode in (126, 127)


def test_exec_goes_where_a_divided_cgroup_has_its_processes(runtime: Ground) -> None:
    """systemd as process 1 leaves the top of its cgroup and hands controllers down: nobody may be there any more."""
    limits: dict[str, dict[str, Any]] = {
        "hugetlb": {"hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 21}]},
        "pids": {"pids": {"limit": 100}},
    }
    controller = next((one for one in limits if one in cgroups.controllers(cgroups.root())), None)
    if controller is None:
        pytest.skip("no controller of cgroup v2 here to be handed down")
    runtime.process(*SLEEP)
    runtime.config["linux"]["resources"] = limits[controller]
    runtime("run", "--detach", "one", check=True)
    pid = runtime.state("one")["pid"]
    top = cgroups.root() / Path(f"/proc/{pid}/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    (top / "init.scope").mkdir()
    cgroups.attach(top / "init.scope", pid)
    cgroups.enable(top, {controller})
    said = runtime("exec", "one", "/usr/bin/cat", "/proc/self/cgroup", check=True).stdout
    assert f"/{top.name}/init.scope" in said


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--user", "5"), ["5", "7", "8", "0077"]),
        (("--user", "5:6"), ["5", "6", "8", "0077"]),
        (("--user", "5", "-g", "9"), ["5", "7", "8 9", "0077"]),
    ],
)
def test_exec_changes_of_the_user_what_is_said(runtime: Ground, words: tuple[str, ...], wanted: list[str]) -> None:
    """The group, further groups and the umask stay the container's, as runc has it."""
    runtime.process(*SLEEP, user={"uid": 1, "gid": 7, "additionalGids": [8], "umask": 0o77})
    runtime("run", "-d", "one", check=True)
    done = runtime("exec", *words, "one", "/usr/bin/cat", "/proc/self/status")
    lines = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
    assert [lines["Uid"].split()[0], lines["Gid"].split()[0], lines["Groups"].strip(), lines["Umask"]] == wanted


def test_exec_in_a_paused_container_waits_with_it(runtime: Ground) -> None:
    """Refused without --ignore-paused; with it, the program runs when the container goes on."""
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    runtime("pause", "one", check=True)
    refused = runtime("exec", "one", "/usr/bin/true")
    assert refused.returncode == 1 and "it is paused" in refused.stderr
    words = runtime.words("exec", "--ignore-paused", "one", "/usr/bin/touch", "/ran")
    with subprocess.Popen(words, cwd=runtime.folder) as waits:
        until(lambda: len(json.loads(runtime("ps", "--format", "json", "one").stdout)) > 1)
        time.sleep(0.2)
        assert waits.poll() is None and not (runtime.folder / "rootfs/ran").exists()
        runtime("resume", "one", check=True)
        assert waits.wait(20) == 0 and (runtime.folder / "rootfs/ran").exists()


def test_exec_takes_a_whole_process(runtime: Ground) -> None:
    """--process: the object as engines write it."""
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    wanted = {"args": ["/usr/bin/id", "-u"], "cwd": "/", "user": {"uid": 9, "gid": 9}, "env": []}
    file = runtime.folder / "process.json"
    file.write_text(json.dumps(wanted))
    assert runtime("exec", "--process", str(file), "one").stdout == "9\n"
    assert "does not run" not in runtime("exec", "one", "/usr/bin/true").stderr


def test_hooks_run_in_order_with_the_state(runtime: Ground) -> None:
    """All six kinds: their order, the state on standard input, and its status at that moment."""
    log = runtime.folder / "log"
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

    def hook(kind: str, file: str) -> dict[str, Any]:
        words = ["sh", "-c", f'read -r state; echo "{kind} $A $state" >>{file}']
        return {"path": "/usr/bin/sh", "args": words, "env": ["A=b"], "timeout": 20}

    inside = {"startContainer": "/log"}
    runtime.config["hooks"] = {kind: [hook(kind, inside.get(kind, str(log)))] for kind in kinds}
    runtime.process(*SLEEP)
    runtime("create", "one", check=True)
    assert [line.split()[0] for line in log.read_text().splitlines()] == list(kinds[:3])
    runtime("start", "one", check=True)
    until((runtime.folder / "rootfs/log").exists)
    runtime("delete", "--force", "one", check=True)
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    states = {line[0]: json.loads(line[2]) for line in lines}
    assert {state["id"] for state in states.values()} == {"one"} and {line[1] for line in lines} == {"b"}
    assert states["createRuntime"]["status"] == "creating" and states["createRuntime"]["pid"] > 0
    assert states["poststart"]["status"] == "running" and states["poststop"]["status"] == "stopped"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_a_hook_that_fails_ends_the_container(runtime: Ground, kind: str) -> None:
    """The error names the hook, its status and what it printed; nothing is left."""
    runtime.config["hooks"] = {kind: [{"path": "/usr/bin/sh", "args": ["sh", "-c", "echo no luck >&2; exit 4"]}]}
    runtime.process(*SLEEP)
    done = runtime("run", "one")
    assert done.returncode == 1
    assert f"hooks.{kind}[0] (/usr/bin/sh) failed with 4" in done.stderr and "no luck" in done.stderr
    assert runtime.left() == []


def test_a_hook_that_hangs_is_ended(runtime: Ground) -> None:
    """After its time-out a hook is killed, with what it started."""
    runtime.config["hooks"] = {"createRuntime": [{"path": "/usr/bin/sh", "args": ["sh", "-c", "sleep 987 & sleep 987"],
                                                  "timeout": 1}]}  # fmt: skip
    runtime.process(*SLEEP)
    done = runtime("create", "one")
    assert done.returncode == 1 and "did not end within 1 s" in done.stderr
    assert runtime.left() == []
    assert subprocess.run(["pgrep", "-f", "sleep 987"], capture_output=True).returncode == 1


def test_a_terminal_goes_to_the_console_socket(runtime: Ground) -> None:
    """The master arrives, and what the program writes to its terminal can be read there; /dev/console is it."""
    runtime.process("/usr/bin/sh", "-c", "tty; stty size; test -c /dev/console && echo console", terminal=True,
                    consoleSize={"height": 11, "width": 22})  # fmt: skip
    path = str(runtime.folder / "console.sock")
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(path)
        waiting.listen()
        runtime("create", "--console-socket", path, "one", check=True)
        line, _ = waiting.accept()
        with line:
            _, fds, _, _ = socket.recv_fds(line, 64, 1)
    runtime("start", "one", check=True)
    said = b""
    try:
        while part := os.read(fds[0], 4096):
            said += part
    except OSError:
        pass  # EIO: the last one inside has closed it
    os.close(fds[0])
    assert said.decode().split() == ["/dev/pts/0", "11", "22", "console"]


def test_a_terminal_without_a_socket_is_refused(runtime: Ground) -> None:
    """create cannot hold the other end."""
    runtime.process(*SLEEP, terminal=True)
    done = runtime("create", "one")
    assert done.returncode == 1 and "--console-socket" in done.stderr and runtime.left() == []


def test_a_capability_out_of_the_bounding_set_is_warned_of(runtime: Ground) -> None:
    """Started without CAP_SYS_TIME, the runtime cannot grant it: run and exec say so, and go on."""
    asked = {kind: ["CAP_SYS_TIME", "CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    runtime.process("/usr/bin/sh", "-c", "exec sleep 1000", capabilities=asked)
    runtime.write()
    lacking = ["setpriv", "--bounding-set", "-sys_time", *runtime.words("run", "-d", "one")]
    with (runtime.folder / "err").open("w") as err:  # a pipe would stay open as long as the container
        done = subprocess.run(lacking, cwd=runtime.folder, stderr=err, stdout=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0 and "has none such: CAP_SYS_TIME" in (runtime.folder / "err").read_text()
    status = Path(f"/proc/{runtime.state('one')['pid']}/status").read_text()
    assert "CapBnd:\t0000000000000020" in status
    again = ["setpriv", "--bounding-set", "-sys_time", *runtime.words("exec", "one", "/usr/bin/true")]
    assert b"CAP_SYS_TIME" in subprocess.run(again, cwd=runtime.folder, capture_output=True, timeout=60).stderr


def test_a_namespace_by_its_path_is_joined(runtime: Ground) -> None:
    """The container is in the network namespace of another one, and in new ones beside."""
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    first = runtime.state("one")["pid"]
    spaces = [{"type": kind} for kind in ("pid", "mount", "uts", "ipc")]
    runtime.config["linux"]["namespaces"] = [*spaces, {"type": "network", "path": f"/proc/{first}/ns/net"}]
    runtime("run", "-d", "two", check=True)
    second = runtime.state("two")["pid"]
    same = {kind: os.readlink(f"/proc/{first}/ns/{kind}") == os.readlink(f"/proc/{second}/ns/{kind}")
            for kind in ("net", "pid", "mnt", "uts", "ipc")}  # fmt: skip
    assert same == {"net": True, "pid": False, "mnt": False, "uts": False, "ipc": False}


def test_a_pid_namespace_by_its_path_is_joined(runtime: Ground) -> None:
    """A pod's shared numbers: the second container's process is not 1 there, and both are seen."""
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    first = runtime.state("one")["pid"]
    spaces = [{"type": kind} for kind in ("network", "mount", "uts", "ipc")]
    runtime.config["linux"]["namespaces"] = [*spaces, {"type": "pid", "path": f"/proc/{first}/ns/pid"}]
    runtime.process("/usr/bin/sh", "-c", "echo $$; tr '\\0' ' ' </proc/1/cmdline")
    done = runtime("run", "two")
    assert done.returncode == 0, done.stderr
    number, command = done.stdout.split("\n", 1)
    assert int(number) > 1 and command.strip() == " ".join(SLEEP)


def test_root_in_a_user_namespace_is_somebody_else_outside(runtime: Ground) -> None:
    """Mappings are written, and the process is root in there only."""
    runtime.kinds("pid", "network", "ipc", "uts", "mount", "user")
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    runtime.config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    for path in (runtime.folder / "rootfs", *(runtime.folder / "rootfs").rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    runtime.process("/usr/bin/sh", "-c", "(id -u; cat /proc/self/uid_map) >/said; exec sleep 1000")
    runtime("run", "-d", "one", check=True)
    assert Path(f"/proc/{runtime.state('one')['pid']}").stat().st_uid == 100000
    said = until(lambda: len((runtime.folder / "rootfs/said").read_text().split()) == 4)
    assert said and (runtime.folder / "rootfs/said").read_text().split() == ["0", "0", "100000", "65536"]


def test_a_user_namespace_by_its_path_is_joined(runtime: Ground) -> None:
    """A pod's: the second container is root in there, and somebody else outside; mappings beside it are warned of."""
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    runtime.kinds("pid", "network", "ipc", "uts", "mount", "user")
    runtime.config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    for path in (runtime.folder / "rootfs", *(runtime.folder / "rootfs").rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    first = runtime.state("one")["pid"]
    spaces = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]
    runtime.config["linux"]["namespaces"] = [*spaces, {"type": "user", "path": f"/proc/{first}/ns/user"}]
    given = runtime.folder / "hidden/given"  # in there, nobody could go through the folder above
    given.mkdir(parents=True)
    given.parent.chmod(0o700)
    (given / "word").write_text("for two")
    runtime.config["mounts"].append(
        {"destination": "/given", "type": "bind", "source": str(given), "options": ["bind"]}
    )
    done = runtime("run", "-d", "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stands beside the path of a user namespace") == 2
    second = runtime.state("two")["pid"]
    assert os.readlink(f"/proc/{first}/ns/user") == os.readlink(f"/proc/{second}/ns/user")
    assert os.readlink(f"/proc/{first}/ns/mnt") != os.readlink(f"/proc/{second}/ns/mnt")
    status = Path(f"/proc/{second}/status").read_text()
    assert "Uid:\t100000\t100000\t100000\t100000" in status and "Gid:\t100000\t" in status
    owners = {Path(f"/proc/{second}/root/dev/{name}").stat().st_uid for name in ("pts", "mqueue", "shm")}
    assert owners == {100000}
    assert runtime("exec", "two", "/usr/bin/id", "-u").stdout == "0\n"
    assert runtime("exec", "two", "/usr/bin/cat", "/given/word").stdout == "for two"


def test_a_time_namespace_has_its_offset(runtime: Ground) -> None:
    """The boot clock in there is a day ahead."""
    runtime.kinds("pid", "network", "ipc", "uts", "mount", "time")
    runtime.config["linux"]["timeOffsets"] = {"boottime": {"secs": 86400}}
    runtime.process("/usr/bin/cut", "-d.", "-f1", "/proc/uptime")
    inside = int(runtime("run", "one", check=True).stdout)
    assert 86400 <= inside - float(Path("/proc/uptime").read_text().split()[0]) + 60 <= 86400 + 120


def test_lists_are_runcs(runtime: Ground) -> None:
    """The table's head, the JSON's fields and -q, as runc writes them; a kept filter is no container."""
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    runtime.config["linux"]["seccomp"] = seccomp
    runtime.process(*SLEEP)
    runtime("create", "one", check=True)
    head, only = (line.split() for line in runtime("list").stdout.splitlines())
    assert only[0] == "one"
    assert head == runtime.runc("list").stdout.splitlines()[0].split()
    (row,) = json.loads(runtime("list", "-f", "json").stdout)
    assert {"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"} <= row.keys()
    assert runtime("list", "-q").stdout == "one\n"
    assert json.loads(runtime("ps", "-f", "json", "one").stdout) == [row["pid"]]


def test_no_descriptor_of_the_host_is_open_inside(runtime: Ground) -> None:
    """CVE-2024-21626: whatever the caller held, run and exec give 0, 1 and 2; --preserve-fds gives those more."""
    fd = os.open("/", os.O_RDONLY)
    try:
        runtime.process("/usr/bin/ls", "/proc/self/fd")
        assert runtime("run", "one", pass_fds=[fd]).stdout.split() == ["0", "1", "2", "3"]
        runtime.process(*SLEEP)
        runtime("run", "-d", "one", check=True)
        assert runtime("exec", "one", "/usr/bin/ls", "/proc/self/fd", pass_fds=[fd]).stdout.split() == list("0123")
    finally:
        os.close(fd)


@pytest.mark.parametrize("identifier", ["a/b", "..", ".", "", "x" * 1025, "a b"])
def test_what_cannot_be_an_id_is_refused(runtime: Ground, identifier: str) -> None:
    """An id is a folder's name, and never a way out of the root."""
    runtime.process(*SLEEP)
    done = runtime("create", identifier)
    assert done.returncode == 1 and "cannot be a container's id" in done.stderr


def test_what_cannot_start_leaves_nothing(runtime: Ground) -> None:
    """127, 126 and a bundle that is not there, each in words; nothing is remembered."""
    for arguments, status in ((["/no/such"], 127), (["/usr"], 126), (["no-such"], 127)):
        runtime.process(*arguments)
        assert runtime("create", "one").returncode == status, arguments
        assert runtime.left() == []
    done = runtime("create", "--bundle", "/no/such", "one")
    assert done.returncode == 1 and "there is no /no/such" in done.stderr and runtime.left() == []


def test_errors_are_told_to_engines(runtime: Ground) -> None:
    """--log with --log-format json: one object a line, with level, msg and time."""
    log = runtime.folder / "log"
    runtime("--log", str(log), "--log-format", "json", "start", "nobody")
    line = json.loads(log.read_text())
    assert line["level"] == "error" and "there is no container 'nobody'" in line["msg"] and line["time"]


@pytest.mark.parametrize("moment", [0.02, 0.05, 0.08, 0.11, 0.14, 0.17, 0.2, 0.25])
def test_killed_while_it_creates_it_can_be_deleted(runtime: Ground, moment: float) -> None:
    """SIGKILL at any moment: delete --force leaves no process, no cgroup, no mount and no folder (the census)."""
    runtime.process(*SLEEP)
    runtime.write()
    making = subprocess.Popen(runtime.words("create", "one"), cwd=runtime.folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    time.sleep(moment)
    making.kill()
    making.wait()
    runtime("delete", "--force", "one", check=True)
    assert runtime.left() == []
    until(lambda: subprocess.run(["pgrep", "-x", "labkit:.*|labkit-created"], capture_output=True).returncode == 1)


def test_two_at_once_of_one_id(runtime: Ground) -> None:
    """Of five that ask at once for one id, one gets it."""
    runtime.process(*SLEEP)
    runtime.write()
    asked = [subprocess.Popen(runtime.words("create", "one"), cwd=runtime.folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(5)]  # fmt: skip
    assert sorted(one.wait() for one in asked) == [0, 1, 1, 1, 1]
    assert runtime.state("one")["status"] == "created"
    assert process.start_time(runtime.state("one")["pid"]) is not None
