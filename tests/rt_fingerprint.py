"""A fingerprint: what the kernel holds of a running container, read from outside, alike for every runtime.

As a program (in a view of its own, see bench.machine): each configuration started by each runtime, and its
fingerprint, one JSON line each.  Identifiers, places and programs are the same for all, so that nothing needs
to be taken out but numbers that the kernel deals.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import rt_configurations

from bench import machine
from labkit.kernel import bpf, mounts, syscalls
from labkit.kernel import constants as C

ID = "fingerprint-1"
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
STATUS = ("Umask", "Uid", "Gid", "Groups", "NStgid", "NSsid", "NSpgid", "SigQ", "SigBlk", "SigIgn", "SigCgt", "CapInh",
          "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
          "Speculation_Store_Bypass", "SpeculationIndirectBranch", "THP_enabled", "untag_mask")  # fmt: skip
FILES = ("oom_score_adj", "limits", "uid_map", "gid_map", "setgroups", "personality", "coredump_filter", "sessionid",
         "loginuid", "timens_offsets", "cmdline", "environ", "comm", "timerslack_ns")  # fmt: skip
SETTINGS = ("kernel/hostname", "kernel/domainname", "kernel/shm_rmid_forced", "kernel/msgmax",
            "net/ipv4/ip_default_ttl", "net/ipv4/ping_group_range", "net/ipv4/ip_forward")  # fmt: skip
# What of a cgroup is a setting; the rest counts.  No configuration speaks of cpuset and io, and which of their files
# there are is the machine's.
LIMITS = re.compile(
    r"(memory\.(min|low|high|max|oom\.group|swap\.\w+|zswap\.max)|cpu\.(max|weight|idle)(\.\w+)?|pids\.max|"
    r"hugetlb\.\w+\.(rsvd\.)?max|cgroup\.(type|freeze|subtree_control))"
)
NODES = ("null", "zero", "full", "random", "urandom", "tty")


def take(pid: int, given: str) -> dict[str, Any]:
    """The fingerprint of the process; `given` is the namespace that a configuration may name."""
    folder = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    found: dict[str, Any] = {f"status {key}": status[key].split() for key in STATUS if key in status and key != "SigQ"}
    # Its own number differs from run to run: whether it leads the session and the group does not.
    for key in ("NStgid", "NSsid", "NSpgid"):
        found[f"status {key}"] = ["n", *status[key].split()[1:]]
    for name in FILES:
        if (folder / name).exists():
            found[name] = (folder / name).read_text(errors="replace").split("\0" if name == "environ" else "\n")
    for kind in KINDS:
        link = os.readlink(folder / "ns" / kind)
        same = {os.readlink(f"/proc/self/ns/{kind}"): "the machine's", os.readlink(given): "the given one"}
        found[f"namespace {kind}"] = same.get(link, "new")
    for name in ("cwd", "root", "exe"):
        found[name] = os.readlink(folder / name)
    fds = {name: os.readlink(folder / "fd" / name) for name in sorted(os.listdir(folder / "fd"))}
    found["descriptors"] = {name: link.split("[")[0] for name, link in fds.items()}
    found["mounts"] = mount_list(folder)
    found["cgroup"] = (folder / "cgroup").read_text().splitlines()
    found |= cgroup(folder)
    found["scheduler"] = [
        os.sched_getscheduler(pid),
        os.getpriority(os.PRIO_PROCESS, pid),
        sorted(os.sched_getaffinity(pid)),
    ]
    found["files"] = tree(folder / "root")
    found["settings"] = settings(pid)
    return found


def mount_list(folder: Path) -> list[list[str]]:
    """[place, place of the mount that it lies on, root, options, shared or slave, type, source, the type's options]."""
    found, places = [], {}
    rows = [line.partition(" - ") for line in (folder / "mountinfo").read_text().splitlines()]
    for left, _, _ in rows:
        places[left.split(" ")[0]] = left.split(" ")[4]
    for left, _, right in rows:
        words, tail = left.split(" "), right.split(" ")
        kinds = [re.sub(r":\d+", "", word) for word in words[6:]]
        found.append([words[4], places.get(words[1], ""), words[3], words[5], " ".join(kinds), *tail])
    return sorted(found)


def cgroup(folder: Path) -> dict[str, Any]:
    """Settings of its cgroup, and how many programs decide about devices there."""
    path = (folder / "cgroup").read_text().strip().rpartition("::")[2]
    group = machine.CGROUPS / path.lstrip("/")
    if not (group / "cgroup.procs").exists():
        return {}
    found = {f"cgroup {file.name}": file.read_text().split("\n") for file in sorted(group.iterdir())
             if LIMITS.fullmatch(file.name)}  # fmt: skip
    return {**found, "device programs": len(bpf.attached(group, C.BPF_CGROUP_DEVICE))}


def tree(root: Path) -> dict[str, list[Any]]:
    """What is there, two folders deep, but for the machine's own /usr and what the kernel makes."""
    found: dict[str, list[Any]] = {}
    for base, folders, names in os.walk(root):
        here = Path(base)
        inner = here.relative_to(root)
        for name in sorted([*folders, *names]):
            info = os.lstat(here / name)
            link = os.readlink(here / name) if here.joinpath(name).is_symlink() else ""
            found[str(inner / name)] = [oct(info.st_mode), info.st_uid, info.st_gid, info.st_rdev, link]
        folders[:] = [
            name for name in folders if str(inner / name) not in ("usr", "proc", "sys") and len(inner.parts) < 3
        ]
    return found


def settings(pid: int) -> list[str]:
    """Kernel settings as they are in its namespaces: read by a child that has entered them."""
    inward, outward = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            syscalls.call(
                "setns", syscalls.call("pidfd_open", pid, 0), C.CLONE_NEWUTS | C.CLONE_NEWIPC | C.CLONE_NEWNET
            )
            said = [Path("/proc/sys", name).read_text().strip() for name in SETTINGS]
        except OSError as error:
            said = [str(error)]
        os.write(outward, json.dumps(said).encode())
        os._exit(0)
    os.close(outward)
    with os.fdopen(inward) as pipe:
        said = json.load(pipe)
    os.waitpid(child, 0)
    return [f"{name} = {one}" for name, one in zip(SETTINGS, said, strict=False)]


def started(words: list[str], config: dict[str, Any], bundle: Path, given: str) -> dict[str, Any]:
    """The fingerprint of this configuration under this runtime; {"refused": ...} when it does not start."""
    shutil.rmtree(bundle, ignore_errors=True)
    for name in NODES:
        os.chown(f"/dev/{name}", 0, 0)
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "shared").mkdir()
    (bundle / "shared/file").touch()
    for name in ("bin", "lib", "lib64"):
        (bundle / "rootfs" / name).symlink_to(f"usr/{name}")
    if "uidMappings" in config["linux"]:
        for name in ("rootfs", "shared"):
            os.chown(bundle / name, 100000, 100000)
    text = (
        json.dumps(config).replace('"source": "shared', f'"source": "{bundle}/shared').replace('"GIVEN"', f'"{given}"')
    )
    (bundle / "config.json").write_text(text)
    pid_file = bundle / "pid"
    with (bundle / "said").open("w") as said:
        command = [*words, "run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file), ID]
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said).returncode
    if status:
        return {"refused": (bundle / "said").read_text()[-1000:]}
    pid = int(pid_file.read_text())
    try:
        deadline = time.monotonic() + 10
        while "nanosleep" not in Path(f"/proc/{pid}/wchan").read_text():
            if time.monotonic() > deadline:
                return {"refused": "it does not sleep"}
            time.sleep(0.002)
        return take(pid, given)
    except FileNotFoundError:
        return {"refused": f"it has ended: {(bundle / 'said').read_text()[-1000:]}"}
    finally:
        os.kill(pid, signal.SIGKILL)
        adopt(pid)
        subprocess.run([*words, "delete", "--force", ID], capture_output=True)


def adopt(pid: int) -> None:
    """Wait for a container's process to end: it is ours, as process 1, as soon as all that stood above it are gone."""
    deadline = time.monotonic() + 10
    while True:
        try:
            os.waitpid(pid, 0)
            return
        except ChildProcessError:
            if time.monotonic() > deadline:
                status = Path(f"/proc/{pid}/status")
                raise RuntimeError(status.read_text() if status.exists() else f"{pid} is gone") from None
            time.sleep(0.01)


def own_nodes(folder: Path) -> None:
    """Device nodes of this machine's own over the real ones: a runtime may give them another owner."""
    (folder / "dev").mkdir()
    mounts.mount("none", folder / "dev", "tmpfs", ["mode=755"])
    for name in NODES:
        real = os.stat(f"/dev/{name}")
        os.mknod(folder / "dev" / name, real.st_mode, real.st_rdev)
        os.chmod(folder / "dev" / name, real.st_mode & 0o7777)
        subprocess.run(["mount", "--bind", folder / "dev" / name, f"/dev/{name}"], check=True)
    subprocess.run(["umount", "-l", folder / "dev"], check=True)


def main() -> None:
    """As process 1 of a machine: take them all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--view", required=True)
    parser.add_argument("--numbers", type=int, required=True)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("runtimes", nargs="+", metavar="NAME=WORDS")
    asked = parser.parse_args()
    machine.arrange(asked.view)
    own_nodes(asked.folder)
    os.umask(0o022)
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    given = f"/proc/{holder.pid}/ns/net"
    while os.readlink(given) == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    runtimes = {name: words.split() for name, words in (one.split("=", 1) for one in asked.runtimes)}
    with (asked.folder / "fingerprints").open("w") as file:
        for number in range(asked.numbers):
            config, _ = rt_configurations.made(number, limits=asked.limits)
            for name, words in runtimes.items():
                found = started([*words, "--root", f"/run/{name}"], config, asked.folder / "bundle", given)
                print(json.dumps({"number": number, "runtime": name, "found": found}), file=file, flush=True)
    holder.kill()


if __name__ == "__main__":
    sys.exit(main())
