"""Configurations of containers, made by a seeded generator: each part of config.json in one of its choices.

Number N is always the same one.  Every choice of every part is met, beside changing choices of all others.
"""

from __future__ import annotations

import random
from typing import Any

from labkit.runtime.document import template

Change = dict[str, Any]
NET_SYSCTL = {"net.ipv4.ip_default_ttl": "77", "net.ipv4.ping_group_range": "0 100"}
IPC_SYSCTL = {"kernel.shm_rmid_forced": "1", "kernel.msgmax": "4096"}


def bind(destination: str, *options: str, source: str = "shared") -> Change:
    """A bind mount; `source` lies in the bundle."""
    return {"destination": destination, "type": "bind", "source": source, "options": list(options)}


def tmpfs(destination: str, *options: str) -> Change:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def rule(names: list[str], action: str, **more: Any) -> Change:
    return {"names": names, "action": f"SCMP_ACT_{action}", **more}


SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
KILL = ["CAP_KILL"]
NAMESPACES = ("network", "ipc", "uts", "cgroup")
# part: its choices.  A list of several words is no choice of the specification's, but one of ours.
PARTS: dict[str, list[Any]] = {
    "namespaces": [["network", "ipc", "uts"], ["network", "ipc", "uts", "cgroup"], ["network"], [], ["ipc", "uts"],
                   ["network", "uts", "cgroup"], ["given network", "ipc", "uts"]],
    "user_namespace": [False, False, False, True],
    "user": [{"uid": 0, "gid": 0}, {"uid": 1000, "gid": 1000}, {"uid": 0, "gid": 5, "additionalGids": [4, 24, 3]},
             {"uid": 33, "gid": 0, "umask": 0o027}, {"uid": 12, "gid": 34, "additionalGids": [34, 56], "umask": 0}],
    "capabilities": [None, {}, dict.fromkeys(SETS[:3], KILL), dict.fromkeys(SETS, KILL),
                     {"bounding": ["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN"], "permitted": ["CAP_CHOWN"]},
                     {kind: ["CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SETUID"] for kind in SETS[:4]}],
    "noNewPrivileges": [True, False],
    "rlimits": [[], [("NOFILE", 64, 128)], [("CORE", 0, 0), ("NPROC", 200, 300), ("AS", 2**33, 2**34)],
                [("MEMLOCK", 4096, 8192), ("STACK", 2**20, 2**22), ("CPU", 50, 100), ("NICE", 0, 0)]],
    "oomScoreAdj": [None, 0, 500, 1000],
    "cwd": ["/", "/usr", "/proc", "/dev/shm", "/new/folder"],
    "env": [template.ENVIRONMENT, [], ["PATH=/usr/bin", "A=1", "A=2", "EMPTY=", "WITH=a=b"], ["HOME=/x", "X=y z"]],
    "mounts": [[], [tmpfs("/t", "nosuid", "size=1m", "mode=700")], [bind("/b", "rbind", "ro")],
               [bind("/b", "bind", "rprivate", "nodev", "nosuid"), tmpfs("/b/over", "ro", "noexec")],
               [bind("/b", "rbind", "rslave"), bind("/c", "bind", "shared", "noexec")],
               [bind("/file", "bind", "ro", source="shared/file"), tmpfs("/run", "strictatime", "uid=5", "gid=6")],
               [bind("/deep/er/and", "bind", "unbindable"), tmpfs("/tmp", "rw", "relatime", "nr_inodes=50")],
               [bind("/b", "rbind", "rro")] ],
    "readonly": [False, True],
    "rootfsPropagation": ["", "", "private", "slave", "shared"],
    "maskedPaths": [template.MASKED, [], ["/proc/kcore", "/sys/firmware", "/usr/share", "/no/such"]],
    "readonlyPaths": [template.READ_ONLY, [], ["/proc/sys", "/proc/bus", "/usr/lib", "/no/such"]],
    "sysctl": [{}, {}, {"net": NET_SYSCTL}, {"ipc": IPC_SYSCTL}, {"net": NET_SYSCTL, "ipc": IPC_SYSCTL}],
    "hostname": ["", "box", "a.longer-name.example"],
    "devices": [[], [{"path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8}],
                [{"path": "/dev/deep/made", "type": "c", "major": 10, "minor": 229},
                 {"path": "/dev/pipe", "type": "p", "fileMode": 0o600}]],
    "seccomp": [None, None, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["mkdir", "rmdir"], "ERRNO")]},
                {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["personality"], "ERRNO", errnoRet=95, args=[
                    {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]), rule(["reboot"], "KILL_PROCESS")]},
                {"defaultAction": "SCMP_ACT_LOG",
                 "syscalls": [rule(["execve", "read", "write"], "ALLOW")]}],
    "cgroupsPath": ["", "/fingerprint", "/deep/below/it"],
    "resources": [{}, {"devices": [{"allow": False, "access": "rwm"}]},
                  {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10,
                                                                  "minor": 229, "access": "rw"}]}],
}  # fmt: skip
# More of `resources`, where the machine has the controllers.
LIMITS: list[Change] = [
    {"memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}, "pids": {"limit": 77}},
    {"cpu": {"shares": 512, "quota": 50000, "period": 100000}, "memory": {"limit": -1}},
    {"pids": {"limit": -1}, "cpu": {"shares": 1024}},
    {"unified": {"memory.high": "50000000", "pids.max": "88"}, "memory": {"limit": 128 << 20}},
]


def made(number: int, *, limits: bool = False) -> tuple[Change, dict[str, int]]:
    """config.json number N, and which choice each part has; `limits` needs a machine with controllers."""
    rolled = random.Random(number)
    # Turned by one from number to number, so that all choices come; thrown from part to part, so that they mix.
    picked = {part: (number if rolled.random() < 0.5 else rolled.randrange(100)) % len(choices)
              for part, choices in PARTS.items()}  # fmt: skip
    chosen = {part: PARTS[part][index] for part, index in picked.items()}
    kinds = list(chosen["namespaces"])
    if chosen["user_namespace"]:
        # Without new ones of these neither sysfs nor mqueue may be mounted; and devices are bound from the machine's.
        kinds = ["network", "ipc", *(kind for kind in kinds if kind in ("uts", "cgroup"))]
        chosen["devices"] = []
    config = template.spec() | {"ociVersion": "1.0.2"}  # the oldest of the peers knows no later one
    process, linux = config["process"], config["linux"]
    process |= {"terminal": False, "args": ["/usr/bin/sleep", "1000"], "user": chosen["user"], "cwd": chosen["cwd"],
                "env": chosen["env"], "noNewPrivileges": chosen["noNewPrivileges"]}  # fmt: skip
    process["rlimits"] = [
        {"type": f"RLIMIT_{one}", "soft": soft, "hard": hard} for one, soft, hard in chosen["rlimits"]
    ]
    for field, value in (("capabilities", chosen["capabilities"]), ("oomScoreAdj", chosen["oomScoreAdj"])):
        process.pop(field, None)
        if value is not None:
            process[field] = value
    config["root"]["readonly"] = chosen["readonly"]
    config["hostname"] = chosen["hostname"] if "uts" in kinds else ""
    config["mounts"] = [one for one in config["mounts"] if "network" in " ".join(kinds) or one["type"] != "sysfs"]
    if not any(one["type"] == "sysfs" for one in config["mounts"]):
        config["mounts"] = [one for one in config["mounts"] if one["type"] != "cgroup"]
    config["mounts"] += [{"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
                         *chosen["mounts"]]  # fmt: skip
    linux["namespaces"] = [{"type": one} for one in ("pid", "mount", *kinds)]
    for one in linux["namespaces"]:
        if one["type"].startswith("given "):
            one |= {"type": "network", "path": "GIVEN"}
    if chosen["user_namespace"]:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    settings = chosen["sysctl"]
    linux["sysctl"] = {**(settings.get("net", {}) if "network" in kinds else {}),
                       **(settings.get("ipc", {}) if "ipc" in kinds else {})}  # fmt: skip
    for field in ("maskedPaths", "readonlyPaths", "devices", "resources"):
        linux[field] = chosen[field]
    for field in ("rootfsPropagation", "seccomp", "cgroupsPath"):
        if chosen[field]:
            linux[field] = chosen[field]
    if limits:
        linux["resources"] = {**linux["resources"], **LIMITS[number % len(LIMITS)]}
    return config, picked
