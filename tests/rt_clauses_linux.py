"""The specification's config-linux.md, runtime-linux.md and features.md."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rt_clauses import ID, SHOULD, Ground, NotHere, clause

from labkit.kernel import mounts

FILES, NAMESPACES = "config-linux.md, Default Filesystems", "config-linux.md, Namespaces"
USERS, TIME = "config-linux.md, User namespace mappings", "config-linux.md, Offset for Time Namespace"
DEVICES, DEFAULTS = "config-linux.md, Devices", "config-linux.md, Default Devices"
CGROUPS, RULES = "config-linux.md, Cgroups Path", "config-linux.md, Allowed Device list"
MEMORY, CPU, PIDS = "config-linux.md, Memory", "config-linux.md, CPU", "config-linux.md, PIDs"
IO, UNIFIED = "config-linux.md, Block IO", "config-linux.md, Unified"
SYSCTL, SECCOMP = "config-linux.md, Sysctl", "config-linux.md, Seccomp"
PROPAGATION, MASKED = "config-linux.md, Rootfs Mount Propagation", "config-linux.md, Masked Paths"
READONLY, PERSONALITY = "config-linux.md, Readonly Paths", "config-linux.md, Personality"
RUNTIME, FEATURES = "runtime-linux.md", "features.md"
ALL = ("pid", "network", "ipc", "uts", "mount", "cgroup")
FILE = {"network": "net", "mount": "mnt"}


def kinds(*names: str) -> list[dict[str, str]]:
    return [{"type": name} for name in names]


@clause(FILES, "/proc, /sys, /dev/pts and /dev/shm are there", SHOULD)
def _(lab: Ground) -> None:
    out = lab.said("stat -f -c '%n %T' /proc /sys /dev/pts /dev/shm").splitlines()
    assert out == ["/proc proc", "/sys sysfs", "/dev/pts devpts", "/dev/shm tmpfs"]


for kind in ALL:

    @clause(NAMESPACES, f"a new {kind} namespace where it is listed")
    def _(lab: Ground, kind: str = kind) -> None:
        state = lab.started(linux__namespaces=kinds(*ALL))
        file = FILE.get(kind, kind)
        assert os.readlink(f"/proc/{state['pid']}/ns/{file}") != os.readlink(f"/proc/self/ns/{file}")


@clause(NAMESPACES, "one that is not listed is the runtime's own")
def _(lab: Ground) -> None:
    config = lab.config(linux__namespaces=kinds("pid", "mount"), hostname="")
    config["mounts"] = [one for one in config["mounts"] if one["type"] not in ("sysfs", "cgroup", "mqueue")]
    state = lab.started("sleep 1000", config)
    for name in ("net", "ipc", "uts"):
        assert os.readlink(f"/proc/{state['pid']}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}"), name


for kind in ("network", "ipc", "uts"):

    @clause(NAMESPACES, f"a {kind} namespace that has a path is joined")
    def _(lab: Ground, kind: str = kind) -> None:
        path = f"/proc/{lab.given['holder']}/ns/{FILE.get(kind, kind)}"
        listed = [{"type": one, **({"path": path} if one == kind else {})} for one in ALL]
        state = lab.started(linux__namespaces=listed, hostname="" if kind == "uts" else "box")
        assert os.readlink(f"/proc/{state['pid']}/ns/{FILE.get(kind, kind)}") == os.readlink(path)


@clause(NAMESPACES, "a path that is no namespace of that kind is an error")
def _(lab: Ground) -> None:
    path = f"/proc/{lab.given['holder']}/ns/uts"
    assert lab.refuses(linux__namespaces=[*kinds("pid", "mount", "uts", "ipc"), {"type": "network", "path": path}])
    assert lab.refuses(linux__namespaces=[*kinds("pid", "mount"), {"type": "network", "path": "/etc/passwd"}])


@clause(NAMESPACES, "a kind that is listed twice is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__namespaces=kinds(*ALL, "uts"))


@clause(NAMESPACES, "a kind that Linux does not have is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__namespaces=kinds(*ALL, "nonsense"))


def mapped(lab: Ground, **changes: Any) -> dict[str, Any]:
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    os.chown(lab.bundle / "rootfs", 100000, 100000)
    return lab.config(linux__namespaces=kinds(*ALL, "user"), linux__uidMappings=ids, linux__gidMappings=ids, **changes)


@clause(USERS, "the mappings are written as they are")
def _(lab: Ground) -> None:
    out = lab.said("cat /proc/self/uid_map /proc/self/gid_map; id -u", mapped(lab)).split()
    assert out == ["0", "100000", "65536"] * 2 + ["0"]


@clause(USERS, "files of the root keep the numbers that they have")
def _(lab: Ground) -> None:
    config = mapped(lab)
    (lab.bundle / "rootfs/mine").touch()
    os.chown(lab.bundle / "rootfs/mine", 100007, 100008)
    assert lab.said("stat -c %u:%g /mine", config) == "7:8"
    assert os.stat(lab.bundle / "rootfs/mine").st_uid == 100007


@clause(TIME, "the clocks of a new time namespace have the offsets", SHOULD)
def _(lab: Ground) -> None:
    offsets = {"boottime": {"secs": 100000}, "monotonic": {"secs": 200000}}
    config = lab.config(linux__namespaces=kinds(*ALL, "time"), linux__timeOffsets=offsets, ociVersion="1.2.0")
    config["process"]["args"] = ["cat", "/proc/uptime"]
    lab.write(config)
    done = lab.verb("run", ID)
    assert done.status == 0, done.out[-200:]
    assert float(done.out.split()[0]) > 100000


# --- devices --------------------------------------------------------------------------------


@clause(DEVICES, "a node has the type, numbers, mode and owner of its entry")
def _(lab: Ground) -> None:
    node = {"path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8}
    out = lab.said("stat -c '%F %t:%T %a %u:%g' /dev/made", linux__devices=[node])
    assert out == "character special file 1:5 640 7:8"


@clause(DEVICES, "folders on its way are made, and a pipe needs no numbers")
def _(lab: Ground) -> None:
    out = lab.said("stat -c %F /dev/deep/er", linux__devices=[{"path": "/dev/deep/er", "type": "p", "fileMode": 0o600}])
    assert out == "fifo"


@clause(DEVICES, "something else at its path is an error")
def _(lab: Ground) -> None:
    (lab.bundle / "rootfs/made").write_text("a file")
    assert lab.refuses(linux__devices=[{"path": "/made", "type": "c", "major": 1, "minor": 5}])


@clause(DEFAULTS, "null, zero, full, random, urandom, tty and ptmx are there")
def _(lab: Ground) -> None:
    out = lab.said("cd /dev; stat -L -c '%n %t:%T' null zero full random urandom tty ptmx").splitlines()
    assert out == ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0", "ptmx 5:2"]


@clause(DEFAULTS, "/dev/console is the terminal, where there is one")
def _(lab: Ground) -> None:
    done = lab.in_terminal("test -c /dev/console && echo here > /dev/console")
    assert done.status == 0 and done.out.split() == ["here"], done


@clause(RUNTIME, "fd, stdin, stdout and stderr in /dev are links to /proc/self/fd")
def _(lab: Ground) -> None:
    out = lab.said("cd /dev; readlink fd stdin stdout stderr").splitlines()
    assert out == ["/proc/self/fd", *(f"/proc/self/fd/{number}" for number in range(3))]


@clause(RUNTIME, "no descriptor but the standard streams is left open for the program")
def _(lab: Ground) -> None:
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        assert lab.said("ls /proc/$$/fd").split()[:3] == ["0", "1", "2"]
        assert len([one for one in lab.said("exec ls -l /proc/self/fd").splitlines() if "->" in one]) <= 4
    finally:
        os.close(secret)


# --- cgroups --------------------------------------------------------------------------------


@clause(CGROUPS, "an absolute path begins at the tree's top")
def _(lab: Ground) -> None:
    if lab.without_cgroups():
        raise NotHere("the runtime was told to do without cgroups")
    state = lab.started(linux__cgroupsPath="/clauses/one")
    assert "/clauses/one" in Path(f"/proc/{state['pid']}/cgroup").read_text()


@clause(CGROUPS, "the same relative path is the same place each time")
def _(lab: Ground) -> None:
    found = []
    for _ in range(2):
        state = lab.started(linux__cgroupsPath="a-place")
        found.append(Path(f"/proc/{state['pid']}/cgroup").read_text())
        lab.verb("delete", "--force", ID)
    assert found[0] == found[1]


@clause(CGROUPS, "without one the container has a cgroup of its own")
def _(lab: Ground) -> None:
    if lab.without_cgroups():
        raise NotHere("the runtime was told to do without cgroups")
    state = lab.started(linux__cgroupsPath=None)
    assert Path(f"/proc/{state['pid']}/cgroup").read_text() != Path("/proc/self/cgroup").read_text()


def cgroup(lab: Ground, name: str, resources: dict[str, Any], **changes: Any) -> str:
    """What a file of the container's cgroup says."""
    state = lab.started(linux__resources=resources, linux__cgroupsPath="/clauses/limits", **changes)
    line = next(one for one in Path(f"/proc/{state['pid']}/cgroup").read_text().splitlines() if one[:3] == "0::")
    return (Path("/sys/fs/cgroup") / line[3:].strip("/") / name).read_text().strip()


MIB = 1 << 20
LIMITS = [
    (MEMORY, "limit", "memory.max", {"memory": {"limit": 64 * MIB}}, str(64 * MIB)),
    (MEMORY, "limit of -1 is none", "memory.max", {"memory": {"limit": -1}}, "max"),
    (MEMORY, "reservation", "memory.low", {"memory": {"reservation": 32 * MIB}}, str(32 * MIB)),
    (MEMORY, "swap, which counts memory too", "memory.swap.max", {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
     str(32 * MIB)),
    (CPU, "quota and period", "cpu.max", {"cpu": {"quota": 50000, "period": 100000}}, "50000 100000"),
    (CPU, "period alone", "cpu.max", {"cpu": {"period": 50000}}, "max 50000"),
    (CPU, "idle", "cpu.idle", {"cpu": {"idle": 1}}, "1"),
    (CPU, "cpus", "cpuset.cpus", {"cpu": {"cpus": "0"}}, "0"),
    (CPU, "mems", "cpuset.mems", {"cpu": {"mems": "0"}}, "0"),
    (PIDS, "limit", "pids.max", {"pids": {"limit": 77}}, "77"),
    (PIDS, "limit of -1 is none", "pids.max", {"pids": {"limit": -1}}, "max"),
    (UNIFIED, "a file and its text", "memory.high", {"unified": {"memory.high": str(48 * MIB)}}, str(48 * MIB)),
]  # fmt: skip
for section, text, file, resources, wanted in LIMITS:

    @clause(section, text, needs="limits")
    def _(lab: Ground, file: str = file, resources: dict[str, Any] = resources, wanted: str = wanted) -> None:
        assert cgroup(lab, file, resources) == wanted


def disk() -> tuple[int, int]:
    """The numbers of a disk of this machine's."""
    found = next(path for path in Path("/sys/block").iterdir() if path.name.startswith(("vd", "sd", "nvme")))
    major, minor = map(int, (found / "dev").read_text().split(":"))
    return major, minor


@clause(CPU, "shares become a weight in between", needs="limits")
def _(lab: Ground) -> None:
    assert 1 < int(cgroup(lab, "cpu.weight", {"cpu": {"shares": 512}})) < 100


@clause(IO, "a rate of a device is a line of io.max", needs="limits")
def _(lab: Ground) -> None:
    major, minor = disk()
    rates = {"blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": MIB}]}}
    assert f"{major}:{minor} rbps={MIB}" in cgroup(lab, "io.max", rates)


@clause(UNIFIED, "a file that there is not is an error", needs="limits")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__resources={"unified": {"memory.nonsense": "1"}})


@clause(MEMORY, "a limit that is a text is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__resources={"memory": {"limit": "much"}})


@clause(RULES, "what is not allowed cannot be opened", needs="limits")
def _(lab: Ground) -> None:
    major, minor = disk()
    node = {"path": "/dev/made", "type": "b", "major": major, "minor": minor, "fileMode": 0o600}
    rules = [{"allow": False, "access": "rwm"}]
    script = "(exec 3</dev/made) 2>/dev/null && echo open || echo shut"
    assert "shut" in lab.run(script, linux__devices=[node], linux__resources={"devices": rules}).out
    rules.append({"allow": True, "type": "b", "major": major, "minor": minor, "access": "rwm"})
    assert "open" in lab.run(script, linux__devices=[node], linux__resources={"devices": rules}).out


# --- the rest -------------------------------------------------------------------------------


@clause(SYSCTL, "a setting of one of the container's namespaces is made there")
def _(lab: Ground) -> None:
    before = Path("/proc/sys/net/ipv4/ip_default_ttl").read_text()
    out = lab.said("cat /proc/sys/net/ipv4/ip_default_ttl", linux__sysctl={"net.ipv4.ip_default_ttl": "77"})
    assert out == "77" and Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() == before


@clause(SYSCTL, "a setting of the whole machine's is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__sysctl={"kernel.core_pattern": "x"})


@clause(SYSCTL, "a setting of a namespace that is the machine's is an error")
def _(lab: Ground) -> None:
    config = lab.config(linux__namespaces=kinds("pid", "mount", "uts", "ipc", "cgroup"))
    config["mounts"] = [one for one in config["mounts"] if one["type"] not in ("sysfs", "cgroup")]
    config["linux"]["sysctl"] = {"net.ipv4.ip_default_ttl": "77"}
    assert lab.refuses(config)


def filtered(lab: Ground, script: str, default: str = "SCMP_ACT_ALLOW", **rule: Any) -> str:
    listed = [{"action": "SCMP_ACT_ERRNO", **rule}] if rule else []
    return lab.run(script, linux__seccomp={"defaultAction": default, "syscalls": listed}).out


TRY = "mkdir /tried 2>&1 && echo made; rmdir /tried 2>/dev/null; true"


@clause(SECCOMP, "a call that a rule meets has the rule's end, others the default's")
def _(lab: Ground) -> None:
    assert "Operation not permitted" in filtered(lab, TRY, names=["mkdir", "mkdirat"])
    assert "made" in filtered(lab, TRY, names=["rmdir"])


@clause(SECCOMP, "errnoRet is the error")
def _(lab: Ground) -> None:
    assert "No space left" in filtered(lab, TRY, names=["mkdir", "mkdirat"], errnoRet=28)


@clause(SECCOMP, "an argument's comparison decides")
def _(lab: Ground) -> None:
    for mode, wanted in ((0o777, "Operation not permitted"), (0o123, "made")):
        assert wanted in filtered(lab, TRY, names=["mkdir"], args=[{"index": 1, "value": mode, "op": "SCMP_CMP_EQ"}])


@clause(SECCOMP, "a name that this architecture does not have is passed over")
def _(lab: Ground) -> None:
    assert "made" in filtered(lab, TRY, names=["there_is_no_such_call"])


@clause(SECCOMP, "an action that there is not is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__seccomp={"defaultAction": "SCMP_ACT_NONSENSE"})


for word, shown in {"private": "", "slave": "", "shared": "shared:", "unbindable": "unbindable"}.items():

    @clause(PROPAGATION, f"{word} is how the root stands")
    def _(lab: Ground, word: str = word, shown: str = shown) -> None:
        script = "grep -E '^[^ ]+ [^ ]+ [^ ]+ [^ ]+ / ' /proc/self/mountinfo | tail -1"
        line = lab.said(script, linux__rootfsPropagation=word)
        optional = " ".join(line.split(" - ")[0].split()[6:])
        assert optional.startswith(shown) if shown else "shared" not in optional and "unbindable" not in optional


@clause(PROPAGATION, "where all is shared, the machine loses none of its mounts and gets none")
def _(lab: Ground) -> None:
    before = Path("/proc/self/mountinfo").read_text().count("\n")
    mounts.propagate("/", "rshared")
    try:
        lab.run("true", linux__rootfsPropagation="shared")
        lab.run("true", linux__rootfsPropagation="rslave")
        assert Path("/proc/self/mountinfo").read_text().count("\n") == before
    finally:
        mounts.propagate("/", "rprivate")


@clause(MASKED, "what is there cannot be read, files and folders")
def _(lab: Ground) -> None:
    (lab.bundle / "rootfs/secret").write_text("secret")
    (lab.bundle / "rootfs/closed").mkdir()
    (lab.bundle / "rootfs/closed/file").write_text("secret")
    out = lab.said("cat /secret; ls /closed | wc -l", linux__maskedPaths=["/secret", "/closed", "/no/such"])
    assert out == "0"


@clause(MASKED, "the path is absolute")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__maskedPaths=["secret"])


@clause(READONLY, "what is there cannot be written")
def _(lab: Ground) -> None:
    (lab.bundle / "rootfs/kept").mkdir()
    out = lab.said("touch /kept/x 2>/dev/null && echo yes || echo no", linux__readonlyPaths=["/kept", "/no/such"])
    assert out == "no"


@clause(READONLY, "the path is absolute")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__readonlyPaths=["kept"])


@clause(PERSONALITY, "LINUX32 is what uname tells")
def _(lab: Ground) -> None:
    found = lab.said("uname -m", linux__personality={"domain": "LINUX32"})
    assert found in ("i686", "armv7l", "armv8l"), found


@clause("config-linux.md, IntelRdt", "asked for where the processor has none it is an error")
def _(lab: Ground) -> None:
    if Path("/sys/fs/resctrl/schemata").exists():
        raise NotHere("this processor has it")
    assert lab.refuses(linux__intelRdt={"closID": "one", "l3CacheSchema": "L3:0=ff"})


@clause(FEATURES, "the verb's answer is JSON with both versions, hooks, mount options and linux", SHOULD)
def _(lab: Ground) -> None:
    found = json.loads(lab.verb("features").out)
    assert {"ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux"} <= set(found)
    assert {"namespaces", "capabilities", "cgroup", "seccomp"} <= set(found["linux"])
