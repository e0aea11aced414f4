"""What an audit of labkit-runtime's life of a container had found: each fault once, as somebody would meet it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rt_ground import SLEEP, Ground, ground, until

from labkit.kernel import causes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

SESSION = -3  # KEY_SPEC_SESSION_KEYRING
ASK = f"import ctypes; print(ctypes.CDLL(None).syscall({{number}}, 0, {SESSION}, 0))"


@pytest.fixture
def runtime() -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    with ground() as made:
        yield made


def shell(script: str, **more: Any) -> dict[str, Any]:
    """A hook that runs a script."""
    return {"path": "/usr/bin/sh", "args": ["sh", "-c", script], **more}


def test_exec_without_a_mount_namespace_stays_in_the_root(runtime: Ground) -> None:
    """The container shares the machine's mounts, and not its root: exec sees the container's."""
    runtime.kinds("pid", "ipc", "uts")
    runtime.config["mounts"] = []
    for field in ("maskedPaths", "readonlyPaths"):
        runtime.config["linux"].pop(field)
    root = runtime.folder / "rootfs"
    for link in ("bin", "lib", "lib64"):
        (root / link).unlink()
    for program in ("/usr/bin/cat", "/usr/bin/sleep"):
        needs = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in (program, *re.findall(r"(/\S+) \(", needs)):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (root / "marker").write_text("the container's")
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    done = runtime("exec", "one", "/usr/bin/cat", "/marker")
    assert (done.returncode, done.stdout) == (0, "the container's")


def test_a_hook_need_not_read_a_long_state(runtime: Ground) -> None:
    """A state larger than a pipe holds: who does not read it still ends at its time-out, or by itself."""
    runtime.config["annotations"] = {"long": "x" * 300_000}
    runtime.process(*SLEEP)
    runtime.config["hooks"] = {"createRuntime": [shell("sleep 987", timeout=1)]}
    done = runtime("create", "one")
    assert done.returncode == 1 and "did not end within 1 s" in done.stderr
    runtime.config["hooks"] = {"createRuntime": [shell("true"), shell(f"wc -c >{runtime.folder}/read")]}
    runtime("create", "one", check=True)
    assert int((runtime.folder / "read").read_text()) > 300_000


def test_a_start_that_was_killed_before_its_end_has_started(runtime: Ground) -> None:
    """The byte is written and the FIFO still there: the program runs, state says so, and delete does not kill it."""
    runtime.process(*SLEEP)
    runtime("create", "one", check=True)
    assert runtime.state("one")["status"] == "created"
    assert runtime.state("one")["status"] == "created"  # looking changes nothing
    (runtime.folder / "state/one/exec.fifo").write_bytes(b"\0")
    until(lambda: runtime.state("one")["status"] == "running")
    assert "running" in runtime("delete", "one").stderr
    assert runtime.state("one")["status"] == "running"


def test_of_many_deletes_one_runs_the_hooks(runtime: Ground) -> None:
    """poststop runs once, however many delete at once; all the others say that there is none."""
    log = runtime.folder / "log"
    runtime.config["hooks"] = {"poststop": [shell(f"echo x >>{log}; sleep 0.5")]}
    runtime.process("/usr/bin/true")
    runtime("create", "one", check=True)
    runtime("kill", "one", "KILL", check=True)
    until(lambda: runtime.state("one")["status"] == "stopped")
    words = runtime.words("delete", "one")
    many = [subprocess.Popen(words, cwd=runtime.folder, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [(one.wait(), one.stderr.read() if one.stderr else "") for one in many]
    for one in many:
        assert one.stderr is not None
        one.stderr.close()
    assert log.read_text() == "x\n"
    assert sorted(status for status, _ in said) == [0, 1, 1, 1]
    assert all("there is no container" in text for status, text in said if status)


@pytest.mark.parametrize(
    "words",
    [("--user", "abc", "one", "true"), ("--user", "1:x", "one", "true"), ("--process", "none.json", "one"),
     ("--process", "config.txt", "one")],
)  # fmt: skip
def test_what_exec_cannot_understand_is_said(runtime: Ground, words: tuple[str, ...]) -> None:
    """In words, with status 1, and without a traceback; the engine finds it in the log."""
    (runtime.folder / "config.txt").write_text("{")
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    log = runtime.folder / "log"
    done = runtime("--log", str(log), "--log-format", "json", "exec", *words)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert json.loads(log.read_text())["level"] == "error"


def test_a_hook_stands_in_the_bundle_and_ignores_nothing(runtime: Ground) -> None:
    """Its folder is the bundle wherever the caller stands; SIGPIPE, which Python ignores, ends it."""
    script = f"pwd >{runtime.folder}/log; grep SigIgn /proc/self/status >>{runtime.folder}/log"
    runtime.config["hooks"] = {"createRuntime": [shell(script)]}
    runtime.process("/usr/bin/true")
    runtime.write()
    words = runtime.words("run", "--bundle", str(runtime.folder), "one")
    subprocess.run(words, cwd="/", check=True)
    folder, ignored = (runtime.folder / "log").read_text().splitlines()
    assert Path(folder) == runtime.folder
    assert int(ignored.split()[1], 16) == 0


def test_the_callers_keys_stay_outside(runtime: Ground) -> None:
    """A session keyring of the container's own, which exec joins; with --no-new-keyring the caller's."""
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    own = ctypes.CDLL(None).syscall(number, 0, SESSION, 0)
    ask = ASK.format(number=number)
    runtime.process("/usr/bin/sh", "-c", f"/usr/bin/python3 -c '{ask}' >/ring; exec sleep 1000")
    ring = runtime.folder / "rootfs/ring"
    runtime("run", "-d", "one", check=True)
    until(lambda: ring.exists() and ring.read_text())
    assert int(ring.read_text()) != own
    assert runtime("exec", "one", "/usr/bin/python3", "-c", ask).stdout == ring.read_text()
    runtime("delete", "--force", "one", check=True)
    ring.unlink()
    runtime("run", "--no-new-keyring", "-d", "one", check=True)
    until(lambda: ring.exists() and ring.read_text())
    assert int(ring.read_text()) == own


def test_exec_runs_from_a_file_that_nobody_can_write(runtime: Ground) -> None:
    """CVE-2019-5736: what the container can see of this runtime as /proc/PID/exe is a sealed copy."""
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    words = runtime.words("exec", "one", "/usr/bin/sh", "-c", "echo ready; exec sleep 1000")
    with subprocess.Popen(words, cwd=runtime.folder, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
        door = os.readlink(f"/proc/{one.pid}/exe")
        runtime("kill", "--all", "one", "KILL")
        one.wait()
    assert door.startswith("/memfd:labkit")


def test_who_joins_a_pod_runs_from_a_sealed_file(runtime: Ground) -> None:
    """The programs of a pid namespace that is there already see the newcomer: it is a sealed copy until execve."""
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    runtime.config["linux"]["namespaces"][0]["path"] = f"/proc/{runtime.state('one')['pid']}/ns/pid"
    runtime("create", "two", check=True)
    assert os.readlink(f"/proc/{runtime.state('two')['pid']}/exe").startswith("/memfd:labkit")
    assert not os.readlink(f"/proc/{runtime.state('one')['pid']}/exe").startswith("/memfd")


def test_no_code_is_imported_from_the_image(runtime: Ground) -> None:
    """Modules of this kit and of Python, laid into the image where the runtime has its own, are never run."""
    root = runtime.folder / "rootfs"
    evil = "open('/owned', 'w').close()\n"
    tree = Path(causes.__file__).parent
    for folder in (tree, Path(os.__file__).parent):
        (root / str(folder).lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name in ("causes.py", "causes_words.py", "schedule.py", "mountinfo.py"):
        (root / str(tree).lstrip("/") / name).write_text(evil)
    for name in ("traceback.py", "termios.py", "socket.py", "json.py", "inspect.py"):
        (root / str(Path(os.__file__).parent).lstrip("/") / name).write_text(evil)
    runtime.process("/no/such/program")
    assert runtime("run", "one").returncode == 127
    runtime.process("/usr/bin/true", cwd="/proc/self/fd/7")
    assert runtime("run", "two").returncode == 1
    runtime.config["linux"]["maskedPaths"].append("/" + "x" * 300)
    assert runtime("run", "three").returncode == 1
    assert not (root / "owned").exists()


def test_an_exec_that_fails_leaves_no_process(runtime: Ground) -> None:
    """The agent of the seccomp filter is gone: exec says so, and its program does not run on."""
    path = str(runtime.folder / "agent")
    rules = [{"names": ["getsid"], "action": "SCMP_ACT_NOTIFY"}]
    runtime.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": path}
    runtime.process(*SLEEP)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        agent.listen()
        runtime("run", "-d", "one", check=True)
    os.unlink(path)
    done = runtime("exec", "one", "/usr/bin/sleep", "1000")
    assert done.returncode == 1 and "cannot pass the seccomp listener" in done.stderr
    assert json.loads(runtime("ps", "--format", "json", "one").stdout) == [runtime.state("one")["pid"]]


def test_no_title_is_written_where_the_image_says(runtime: Ground) -> None:
    """A file of the image's under the name /proc/self/stat gives an address: nothing is written to it."""
    runtime.config["mounts"] = [one for one in runtime.config["mounts"] if one["type"] != "proc"]
    (runtime.folder / "rootfs/proc/self").mkdir(parents=True)
    (runtime.folder / "rootfs/proc/self/stat").write_text("1 (x) S " + "4096 8192 " * 25)
    runtime.process(*SLEEP)
    assert runtime("create", "one", check=True).stderr == ""
    assert runtime.state("one")["status"] == "created"


def test_a_terminal_is_taken_through_no_symlink(runtime: Ground) -> None:
    """The image leads /dev/pts elsewhere, to terminals even: exec and create refuse it."""
    runtime.config["mounts"] = [one for one in runtime.config["mounts"] if not one["destination"].startswith("/dev")]
    runtime.config["mounts"].append({"destination": "/other", "type": "devpts", "source": "devpts",
                                     "options": ["newinstance", "ptmxmode=0666"]})  # fmt: skip
    (runtime.folder / "rootfs/dev").mkdir()
    (runtime.folder / "rootfs/dev/pts").symlink_to("../other")
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    path = str(runtime.folder / "console.sock")
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(path)
        waiting.listen()
        done = runtime("exec", "--tty", "--console-socket", path, "one", "/usr/bin/true")
        assert done.returncode == 1 and "cannot open a terminal on /dev/pts" in done.stderr, done.stderr
        runtime.config["process"]["terminal"] = True
        done = runtime("create", "--console-socket", path, "two")
        assert done.returncode == 1 and "cannot open a terminal on /dev/pts" in done.stderr, done.stderr


def test_a_terminal_is_of_a_devpts(runtime: Ground) -> None:
    """Files on /dev/pts that are none of a devpts are not opened, and change no hands."""
    runtime.config["mounts"] = [one for one in runtime.config["mounts"] if one["type"] != "devpts"]
    runtime.config["mounts"].append({"destination": "/dev/pts", "type": "tmpfs", "source": "tmpfs"})
    runtime.process(*SLEEP)
    runtime("run", "-d", "one", check=True)
    path = str(runtime.folder / "console.sock")
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(path)
        waiting.listen()
        done = runtime("exec", "--tty", "--console-socket", path, "one", "/usr/bin/true")
    assert done.returncode == 1 and "there is no devpts on /dev/pts" in done.stderr, done.stderr
