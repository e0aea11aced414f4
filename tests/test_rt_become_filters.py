"""The seccomp filter of a container's program: when it goes on, its listener's way, and the cache of compiled ones."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rt_become_ground import NONE, become, config, status

from labkit.errors import BadInput
from labkit.kernel.callnumbers import table
from labkit.kernel.seccomp import listener
from labkit.runtime.become import compiled, drop, filters
from labkit.runtime.become.ready import ready

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes user and limits: needs root")]

TREE = Path(__file__).resolve().parent.parent


def deny(call: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    """A filter that stops one call."""
    return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [call], "action": action}], **more}}


@pytest.mark.parametrize("last", [False, True])
def test_the_filter_holds_in_the_program(last: bool) -> None:
    """With and without new privileges to gain, mkdir is refused, and Seccomp is 2."""
    assert status(linux=deny("mkdir"), noNewPrivileges=last)["Seccomp"] == "2"
    said = become(config("sh", "-c", "mkdir /tmp/x-$$ 2>&1", linux=deny("mkdir"), noNewPrivileges=last))
    assert "Operation not permitted" in said


@pytest.mark.parametrize("call", ["rt_sigaction", "rt_sigprocmask", "prctl", "capset", "close_range"])
def test_a_strict_filter_meets_the_program_only(call: str) -> None:
    """What the runtime itself needs on the way is done before the last filter is on."""
    assert status(linux=deny(call, "SCMP_ACT_KILL_PROCESS"), noNewPrivileges=True)["Seccomp"] == "2"


def test_an_ordinary_user_can_be_filtered_without_new_privileges() -> None:
    """The filter goes on after the powers are gone."""
    found = status(linux=deny("mkdir"), noNewPrivileges=True, user={"uid": 1234, "gid": 1234}, capabilities=NONE)
    assert (found["Seccomp"], found["NoNewPrivs"], int(found["CapEff"], 16)) == ("2", "1", 0)


def test_a_filter_that_stops_execve_is_named_as_the_cause() -> None:
    """The program is there and may be executed; what says no is the container's own filter."""
    said = become(config("true", linux=deny("execve"), noNewPrivileges=True))
    assert "cannot execute" in said and "the filter of linux.seccomp, on by now, stops execve" in said


def test_a_filter_that_passes_calls_on_needs_a_listener() -> None:
    """Nobody would answer."""
    with pytest.raises(BadInput, match="listenerPath"):
        ready(config("true", linux=deny("mkdir", "SCMP_ACT_NOTIFY")))


def test_the_listener_arrives_with_the_state(tmp_path: Path) -> None:
    """The agent gets the descriptor and the process's state as the specification says."""
    path = str(tmp_path / "agent")
    one = ready(config("true", linux=deny("mkdir", "SCMP_ACT_NOTIFY", listenerPath=path, listenerMetadata="m")))
    assert one.filter is not None
    inward, _outward = os.pipe()
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        agent.listen()
        filters.send_listener(one.filter, {"ociVersion": "1.2.1", "id": "x"}, 42, inward)
        line, _ = agent.accept()
        with line:
            data, fds, _, _ = socket.recv_fds(line, 65536, 1)
    found = json.loads(data)
    assert (found["fds"], found["pid"], found["metadata"], found["state"]["id"]) == (["seccompFd"], 42, "m", "x")
    assert os.path.samestat(os.fstat(fds[0]), os.fstat(inward))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("calls", [["getsid"], ["getsid", "sendmsg", "sendto"]])
def test_the_listener_goes_from_the_child_to_the_maker(tmp_path: Path, last: bool, calls: list[str]) -> None:
    """Over a socket, or fetched by its number where sendmsg itself waits; what it passes on is answered."""
    rules = [{"names": calls, "action": "SCMP_ACT_NOTIFY"}]
    given = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": str(tmp_path / "agent")}
    one = ready(config("true", linux={"seccomp": given}, noNewPrivileges=last, user={"uid": 1234, "gid": 1234}))
    assert one.filter is not None and one.filter.listens
    number = table(os.uname().machine)["getsid"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            try:
                fd = filters.before_dropping(one)
                if fd is not None:
                    filters.give(one.filter, theirs, fd)
                drop.drop(one)
                fd = filters.at_last(one)
                if fd is not None:
                    filters.give(one.filter, theirs, fd)
                os._exit(ctypes.CDLL(None).syscall(number, 0))
            finally:
                os._exit(255)
        theirs.close()
        fd = filters.take(ours, pid)
    try:
        asked = listener.receive(fd, 20)
        assert asked is not None and asked.data.number == number
        assert listener.answer(fd, asked.id, 77)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77
    finally:
        os.close(fd)


def test_a_kept_program_is_the_same_and_needs_no_compiler(tmp_path: Path) -> None:
    """The second start reads bytes: the filter is equal, and neither compiler nor tables are imported."""
    document = config("true", linux=deny("mkdir"))
    cache = str(tmp_path / "cache")
    first = ready(document, cache)
    assert first == ready(document, cache) == ready(document)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    text = f"""
import json, sys
from labkit.runtime.become.ready import ready
ready(json.loads(sys.argv[1]), {cache!r})
print([name for name in sys.modules if name.startswith("labkit.kernel.seccomp.") or "callnumbers" in name])
"""
    done = subprocess.run([sys.executable, "-c", text, json.dumps(document)], cwd=TREE, capture_output=True, text=True)
    assert done.stdout == "['labkit.kernel.seccomp.load']\n", done.stderr


def test_another_profile_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where both have the same place."""
    monkeypatch.setattr(compiled, "PLACES", 1)
    for name in ("mkdir", "rmdir", "mkdir"):
        document = config("true", linux=deny(name))
        assert ready(document, str(tmp_path)) == ready(document)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("harm", ["writable", "owner", "shorter", "longer", "link", "folder", "older"])
def test_a_kept_program_that_cannot_be_believed_is_made_anew(
    tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file, a damaged one, a symlink, one of another labkit."""
    document = config("true", linux=deny("mkdir"))
    key = compiled.head(document["linux"]["seccomp"])
    first = ready(document, str(tmp_path))
    assert compiled.find(str(tmp_path), key) is not None
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if harm == "writable":
        file.chmod(0o620)
    elif harm == "owner":
        os.chown(file, 1234, 0)
    elif harm == "shorter":
        file.write_bytes(content[:-8])
    elif harm == "longer":
        file.write_bytes(content + bytes(8))
    elif harm in ("link", "folder"):
        file.rename(tmp_path / "elsewhere")
        file.symlink_to("elsewhere") if harm == "link" else file.mkdir()
    else:
        monkeypatch.setattr(compiled, "MACHINE", "another")
        key = compiled.head(document["linux"]["seccomp"])
    assert compiled.find(str(tmp_path), key) is None
    assert ready(document, str(tmp_path)) == first


def test_a_cache_that_cannot_be_written_is_no_error() -> None:
    """It costs the time to compile."""
    document = config("true", linux=deny("mkdir"))
    assert ready(document, "/proc/self/no-such-folder") == ready(document)
