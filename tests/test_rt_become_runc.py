"""The same process object, become here and by runc: what the kernel then has for the program is the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rt_become_ground import become, config

from labkit.runtime.document import template

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="changes user and limits: needs root"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc: apt-get install runc"),
]

SEEN = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk",
        "SigIgn", "Umask")  # fmt: skip
SCRIPT = "cat /proc/self/status /proc/self/limits /proc/self/oom_score_adj; pwd; ls /proc/self/fd; env"
# runc in mount and network namespaces of the test's own, over cgroup2 alone: no controller of the machine's is used.
PRIVATE = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec runc --root "$1/state" run --bundle "$1" "rt-become-$$"'


def runc(document: dict[str, Any], bundle: Path) -> str:
    """What the program says under runc, in a root made of the machine's own programs."""
    whole = template.spec()
    whole["process"] = {**document["process"], "terminal": False}
    (bundle / "root").mkdir()
    whole["root"] = {"path": "root", "readonly": False}
    for folder in ("/usr", "/bin", "/lib", "/lib64", "/etc"):
        if os.path.exists(folder):
            whole["mounts"].append({"destination": folder, "source": os.path.realpath(folder), "type": "bind",
                                    "options": ["rbind", "ro"]})  # fmt: skip
    whole["linux"] = {**whole["linux"], "resources": {}, **document["linux"]}
    whole["linux"]["namespaces"] = [one for one in whole["linux"]["namespaces"] if one["type"] != "cgroup"]
    (bundle / "config.json").write_text(json.dumps(whole))
    words = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", PRIVATE, "sh", str(bundle)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


def seen(said: str) -> list[str]:
    """The lines that config.json's process decides."""
    lines = [" ".join(line.split()) for line in said.splitlines()]
    return sorted(line for line in lines if ":" not in line or line.split(":")[0] in SEEN)


CAPABILITIES = {
    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
    "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
    "effective": ["CAP_CHOWN", "CAP_KILL"],
    "inheritable": ["CAP_NET_RAW", "CAP_KILL"],
    "ambient": ["CAP_NET_RAW", "CAP_CHOWN"],
}


@pytest.mark.parametrize(
    "process",
    [
        {},
        {"capabilities": CAPABILITIES},
        {"capabilities": CAPABILITIES, "user": {"uid": 1234, "gid": 5, "additionalGids": [7, 8], "umask": 0o027}},
        {"capabilities": CAPABILITIES, "noNewPrivileges": True, "cwd": "/made/by/the/runtime"},
        {"user": {"uid": 1234, "gid": 5}, "env": ["PATH=/usr/bin:/bin", "HOME=", "A=1", "A=2=3"], "cwd": "/tmp"},
        {"oomScoreAdj": 123, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                                        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]},
        {"noNewPrivileges": True, "capabilities": CAPABILITIES, "seccomp": True},
    ],
)  # fmt: skip
def test_the_program_is_as_with_runc(tmp_path: Path, process: dict[str, Any]) -> None:
    """Users, sets, masks, limits, folder, environment and descriptors."""
    rules = [{"names": ["rmdir"], "action": "SCMP_ACT_ERRNO"}]
    linux = {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}} if process.get("seccomp") else {}
    wanted = {name: value for name, value in process.items() if name != "seccomp"}
    document = config("sh", "-c", SCRIPT, linux=linux, **{"oomScoreAdj": 0, **wanted})
    theirs = runc(document, tmp_path)
    assert "Name:" in theirs, theirs

    # Made in the machine's own root; there it must not be left behind.
    made = wanted.get("cwd", "/").startswith("/made")
    ours = become(document, cover if made else lambda: None)
    assert seen(ours) == seen(theirs)


def cover() -> None:
    """Cover the machine's root by one of its own folders, so that a folder can be made in it."""
    from labkit.kernel import constants as C
    from labkit.kernel import mounts
    from labkit.kernel.syscalls import call

    call("unshare", C.CLONE_NEWNS)
    mounts.propagate("/", "rprivate")
    mounts.mount("tmpfs", "/mnt", "tmpfs")
    for folder in ("usr", "bin", "lib", "lib64", "etc", "proc", "dev"):
        os.mkdir(f"/mnt/{folder}")
        mounts.mount(f"/{folder}", f"/mnt/{folder}", None, ["rbind"])
    os.chroot("/mnt")
    os.chdir("/")


@pytest.mark.parametrize("item", ["B", "=x"])
def test_what_is_no_variable_runc_refuses_too(tmp_path: Path, item: str) -> None:
    """Both refuse the variable, and start nothing."""
    document = config("sh", "-c", "echo started", env=["PATH=/usr/bin:/bin", item])
    assert "environment variable" in (said := runc(document, tmp_path)) and "started\n" not in said
    assert become(document).startswith("BadInput 1 process.env[1]")
