"""The doctor on this very machine, compared with other programs' answers, and what it leaves."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labkit.lab import doctor

TREE = Path(__file__).resolve().parents[1]
DOCTOR = [sys.executable, "-P", "-m", "labkit", "doctor"]


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """A program's answer as text."""
    return subprocess.run(words, capture_output=True, text=True, timeout=300, **more)


@functools.cache
def answer() -> tuple[dict[str, Any], int]:
    """`labkit doctor --json` on this machine, once for all tests, and its exit status."""
    done = run(*DOCTOR, "--json")
    return json.loads(done.stdout), done.returncode


def found(key: str) -> dict[str, str]:
    """One finding of this machine."""
    (one,) = [one for one in answer()[0]["findings"] if one["key"] == key]
    return dict(one)


def works(script: str) -> bool:
    """Whether a shell script of independent programs succeeds."""
    return run("sh", "-c", script).returncode == 0


def census() -> dict[str, Any]:
    """What the doctor could leave behind, as this machine shows it."""
    links = run("ip", "-o", "link").stdout.splitlines()
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "links": sorted(line.split(":")[1] for line in links),
        "cgroups": sorted(map(str, Path("/sys/fs/cgroup").rglob("*labkit-doctor*"))),
        "switches": {str(file): file.read_text() for file in Path("/sys/fs/cgroup").glob("**/cgroup.subtree_control")
                     if len(file.relative_to("/sys/fs/cgroup").parts) <= 2},
        "policy": sorted(map(str, Path("/sys/kernel/security").glob("apparmor/policy/namespaces/*"))),
        "folders": sorted(map(str, Path("/var/lib").glob("labkit-doctor-*"))),
        "ledgers": sorted(map(str, Path("/run/labkit/ledger").glob("labkit-doctor-*"))),
    }  # fmt: skip


ORACLES = {
    **{f"ns.{kind}": f"unshare {option} true" for kind, option in {
        "mnt": "-m", "uts": "-u", "ipc": "-i", "pid": "-pf", "net": "-n", "user": "-U", "cgroup": "-C", "time": "-T",
    }.items()},
    "userns": "setpriv --reuid 65534 --regid 65534 --clear-groups unshare -Ur unshare -u hostname x",
    "overlay.userns": "unshare -Urm sh -c 'mount -t tmpfs t /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m && "
                      "mount -t overlay o -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w /mnt/m'",
    "veth": "unshare -n ip link add name end0 type veth peer name end1",
    "bridge": "unshare -n ip link add name bridge0 type bridge",
    "nftables": "unshare -n sh -c 'nft add table ip t && nft \"add chain ip t p { type nat hook postrouting "
                "priority 100; }\" && nft add rule ip t p masquerade && nft list ruleset | grep -q masquerade'",
    "tracefs": "unshare -m sh -c 'mount -t tracefs t /mnt && test -e /mnt/events/sched/sched_process_exec'",
    "apparmor": "grep -qx Y /sys/module/apparmor/parameters/enabled && command -v apparmor_parser",
    "btf": "test -s /sys/kernel/btf/vmlinux",
    "psi": "grep -q some /proc/pressure/cpu",
    "seccomp": "grep -qw errno /proc/sys/kernel/seccomp/actions_avail",
    "swap": "test $(wc -l < /proc/swaps) = 1",
    "cgroup2": "findmnt -t cgroup2",
    **{f"cgroup.{name}": f"grep -qw {name} $(findmnt -nt cgroup2 -o TARGET | head -n 1)/cgroup.controllers"
       for name in ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")},
    "tool.crane": "crane version",
    **{f"tool.{name}": f"{name} --version" for name in ("runc", "docker", "nft", "nsenter", "strace")},
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(ORACLES))
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="compares what root can do: needs root")
def test_each_line_agrees_with_another_program(key: str) -> None:
    """ok exactly where unshare, mount, ip, nft, findmnt or the program itself succeeds here."""
    assert (found(key)["state"] == "ok") == works(ORACLES[key]), found(key)


def test_numbers_agree_with_other_programs() -> None:
    """Memory is free's total, disk is df's, the kernel is uname's."""
    total = int(run("free", "-m").stdout.splitlines()[1].split()[1])
    assert abs(int(found("memory")["found"].split()[0]) - total) <= 1
    place = found("disk")["found"].rpartition(" at ")[2]
    free = int(run("df", "-B1", "--output=avail", place).stdout.split()[1]) // 1_000_000
    assert abs(int(found("disk")["found"].split()[0]) - free) < 2000
    assert run("uname", "-r").stdout.strip() in found("kernel")["found"]


def test_versions_are_those_that_the_programs_say() -> None:
    """The version in a tool's line stands in the tool's own answer."""
    for name in ("runc", "docker", "nft", "nsenter", "strace"):
        if (one := found(f"tool.{name}"))["state"] == "ok":
            assert one["found"].rpartition("version ")[2] in run(name, "--version").stdout


def test_the_form_for_programs() -> None:
    """--json has machine, findings and fit; every check stands in it once, in a known group and state."""
    whole, status = answer()
    assert set(whole) == {"machine", "findings", "fit"}
    assert {"architecture", "kernel", "distribution"} <= set(whole["machine"])
    assert [one["key"] for one in whole["findings"]] == list(doctor.CHECKS)
    assert {one["group"] for one in whole["findings"]} == set(doctor.GROUPS)
    for one in whole["findings"]:
        assert one["state"] in doctor.STATES
        assert one["found"] and "\n" not in one["found"]
        assert bool(one["cost"]) == bool(one["remedy"]) == (one["state"] != "ok")
    essential = [one for one in whole["findings"] if one["key"] in doctor.ESSENTIAL]
    assert whole["fit"] == all(one["state"] == "ok" for one in essential)
    assert status == (0 if whole["fit"] else 1)


def test_the_form_for_people() -> None:
    """The text has every group and title, and its last line says whether the lab can run here."""
    done = run(*DOCTOR)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in doctor.GROUPS] == list(doctor.GROUPS)
    for check in doctor.CHECKS.values():
        assert any(check.title in line for line in lines)
    assert lines[-1].startswith("The lab can run here" if done.returncode == 0 else "The lab cannot run directly here")


def ordinary() -> list[str]:
    """The doctor as nobody, by an interpreter that every user can reach."""
    return [*("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", f"PYTHONPATH={TREE}"),
            *("PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", "-P", "-m", "labkit", "doctor", "--json")]  # fmt: skip


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user: needs root")
def test_an_ordinary_user_is_told_what_needs_root() -> None:
    """As nobody the doctor works, claims nothing of root's, and is not fit for make lab WHERE=here."""
    done = run(*ordinary())
    whole = json.loads(done.stdout)
    assert done.returncode == 1 and not whole["fit"]
    seen = {one["key"]: one for one in whole["findings"]}
    assert seen["overlay"]["state"] == "missing" and seen["overlay"]["remedy"] == "run it as root"
    assert seen["seccomp"]["state"] == "ok"
    assert all(seen[key]["state"] != "ok" for key in ("ns.mnt", "ns.net", "veth", "bridge", "nftables", "delegation"))
    if works(ORACLES["userns"]):
        assert seen["veth"] | {"cost": ""} == seen["veth"] | {"cost": "", "state": "limited"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a cgroup: needs root")
def test_nothing_is_left() -> None:
    """Mounts, devices, cgroups, controllers, policy namespaces, folders and ledgers are as before."""
    before = census()
    assert run(*DOCTOR).returncode in (0, 1)
    assert census() == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a cgroup: needs root")
@pytest.mark.parametrize("delay", [0.1, 0.15, 0.2, 0.25])
def test_nothing_is_left_after_sigkill(delay: float) -> None:
    """The probes' process killed at some moment: the next doctor gives back what it left."""
    before = census()
    words = [sys.executable, "-P", "-m", "labkit.lab.doctor_probes"]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.2)  # the probes die with it, by signal
    assert run(*DOCTOR).returncode in (0, 1)
    assert census() == before


HARNESS = """
import json, os, signal, sys, time
from labkit.lab.doctor_probes import Probe, Seen, run
def good(): return {"good": Seen("ok", "seen")}
def hangs(): signal.pause()
def leaves():
    if os.fork() == 0:
        time.sleep(987)
    return {"leaves": Seen("ok", "seen")}
def killed(): os.kill(os.getpid(), signal.SIGSEGV)
def leaves_early(): os._exit(3)
def raises(): raise ValueError("a mistake")
def half(): return {"half": Seen("ok", "seen")}
probes = {f.__name__: Probe((f.__name__,), f) for f in (good, hangs, leaves, killed, leaves_early, raises)}
probes["half"] = Probe(("half", "other"), half)
print(json.dumps(run(probes, 1.0)))
"""


def test_a_probe_that_dies_or_hangs_is_a_finding() -> None:
    """Each way to end without an answer is reported as missing with its reason, and hides no other."""
    begun = time.monotonic()
    done = run(sys.executable, "-c", HARNESS)
    assert done.returncode == 0, done.stderr
    seen = {key: (words[0], words[1]) for key, words in json.loads(done.stdout).items()}
    assert seen["good"] == seen["leaves"] == seen["half"] == ("ok", "seen")
    assert seen["hangs"] == ("missing", "no answer in 1 s")
    assert seen["killed"][0] == "missing" and "signal 11" in seen["killed"][1]
    assert seen["leaves_early"] == ("missing", "the probe ended with status 3 and no answer")
    assert seen["raises"] == ("missing", "ValueError: a mistake")
    assert seen["other"][0] == "missing"
    assert time.monotonic() - begun < 30


def test_a_tool_that_does_not_work_is_missing(tmp_path: Path) -> None:
    """A program of the right name that fails is not taken for the tool."""
    shutil.copy(shutil.which("false") or "/bin/false", tmp_path / "strace")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run(sys.executable, "-P", "-m", "labkit.lab.doctor_probes", "tool.strace", env=environment)
    assert json.loads(done.stdout)["tool.strace"][0] == "missing"
