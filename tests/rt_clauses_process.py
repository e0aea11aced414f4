"""The specification's config.md: version, root, mounts, process, user, host name, annotations, what is unknown."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

from rt_clauses import ID, SHOULD, Ground, clause

from labkit.kernel import mounts

VERSION, ROOT, MOUNTS = "config.md, Specification version", "config.md, Root", "config.md, Mounts"
PROCESS, LINUX, USER = "config.md, Process", "config.md, Linux Process", "config.md, User"
NAMES, OTHER = "config.md, Hostname", "config.md, Extensibility"
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


@clause(VERSION, "it is there, and in SemVer's form")
def _(lab: Ground) -> None:
    assert lab.refuses(ociVersion=None) and lab.refuses(ociVersion="one")


@clause(VERSION, "one that the runtime does not know is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(ociVersion="9.0.0")


@clause(ROOT, "path may be absolute or begin at the bundle")
def _(lab: Ground) -> None:
    (lab.bundle / "rootfs/mark").touch()
    assert lab.said("ls /mark") == lab.said("ls /mark", root__path=str(lab.bundle / "rootfs")) == "/mark"


@clause(ROOT, "a folder must be there")
def _(lab: Ground) -> None:
    assert lab.refuses(root__path="nowhere")


@clause(ROOT, "readonly makes it read-only, and without it can be written")
def _(lab: Ground) -> None:
    assert "no" in lab.said("touch /x 2>/dev/null && echo yes || echo no", root__readonly=True)
    assert lab.said("touch /x && echo yes", root__readonly=None) == "yes"


def mounted(lab: Ground, *entries: dict[str, Any], script: str, **changes: Any) -> str:
    config = lab.config(**changes)
    config["mounts"] += entries
    return lab.said(script, config)


def tmpfs(place: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def bind(lab: Ground, place: str, *options: str, source: str = "shared") -> dict[str, Any]:
    return {"destination": place, "type": "bind", "source": str(lab.bundle / source), "options": list(options)}


def flags(place: str) -> str:
    """A script that prints a mount's own options, and its file system's."""
    return f"grep -E '^[^ ]+ [^ ]+ [^ ]+ [^ ]+ {place} ' /proc/self/mountinfo | tail -1"


@clause(MOUNTS, "they are made in the order of the list")
def _(lab: Ground) -> None:
    assert (
        mounted(lab, tmpfs("/a"), tmpfs("/a/b"), script="ls -d /a/b; grep -c ' /a' /proc/self/mountinfo") == "/a/b\n2"
    )
    assert mounted(lab, tmpfs("/a/b"), tmpfs("/a"), script="ls /a") == ""


@clause(MOUNTS, "the place is made where it is missing")
def _(lab: Ground) -> None:
    assert mounted(lab, bind(lab, "/new/deep", "rbind"), script="cat /new/deep/file") == "shared"


@clause(MOUNTS, "a file can be bound as well as a folder")
def _(lab: Ground) -> None:
    assert mounted(lab, bind(lab, "/one", "bind", source="shared/file"), script="cat /one") == "shared"


@clause(MOUNTS, "a source that begins without / begins at the bundle")
def _(lab: Ground) -> None:
    entry = {"destination": "/b", "type": "bind", "source": "shared", "options": ["rbind"]}
    assert mounted(lab, entry, script="cat /b/file") == "shared"


@clause(MOUNTS, "a source that is not there is an error")
def _(lab: Ground) -> None:
    config = lab.config()
    config["mounts"].append({"destination": "/b", "type": "bind", "source": "/no/such", "options": ["rbind"]})
    assert lab.refuses(config)


@clause(MOUNTS, "bind takes the folder alone, rbind what is mounted below as well")
def _(lab: Ground) -> None:
    below = lab.bundle / "shared/below"
    below.mkdir()
    mounts.mount("tmpfs", below, "tmpfs", [])
    try:
        for how, wanted in (("bind", "1"), ("rbind", "2")):
            assert mounted(lab, bind(lab, "/b", how), script="grep -c ' /b[ /]' /proc/self/mountinfo") == wanted, how
    finally:
        mounts.unmount(below)


WORDS = {"ro": "ro", "nosuid": "nosuid", "nodev": "nodev", "noexec": "noexec", "noatime": "noatime",
         "relatime": "relatime", "nodiratime": "nodiratime"}  # fmt: skip
for word, seen in WORDS.items():

    @clause(MOUNTS, f"option {word} of a new file system")
    def _(lab: Ground, word: str = word, seen: str = seen) -> None:
        assert seen in mounted(lab, tmpfs("/t", word), script=flags("/t")).split()[5].split(",")


for word in ("ro", "nosuid", "nodev", "noexec", "noatime"):

    @clause(MOUNTS, f"option {word} of a bind mount")
    def _(lab: Ground, word: str = word) -> None:
        assert word in mounted(lab, bind(lab, "/b", "rbind", word), script=flags("/b")).split()[5].split(",")


@clause(MOUNTS, "data of the file system's own (size, mode) is passed on")
def _(lab: Ground) -> None:
    line = mounted(lab, tmpfs("/t", "size=64k", "mode=700"), script=flags("/t"))
    assert "size=64k" in line and "mode=700" in line


for word, shown in {"rprivate": "", "rslave": "master:", "rshared": "shared:", "runbindable": "unbindable"}.items():

    @clause(MOUNTS, f"propagation {word}")
    def _(lab: Ground, word: str = word, shown: str = shown) -> None:
        mounts.propagate("/", "rshared")  # or a slave would have no master
        try:
            line = mounted(lab, bind(lab, "/b", "rbind", word), script=flags("/b"))
        finally:
            mounts.propagate("/", "rprivate")
        optional = " ".join(line.split(" - ")[0].split()[6:])
        right = optional.startswith(shown) if shown else "shared" not in optional and "unbindable" not in optional
        assert right, optional


@clause(MOUNTS, "rro makes everything below read-only too", SHOULD)
def _(lab: Ground) -> None:
    line = mounted(lab, bind(lab, "/b", "rbind", "rro"), script="touch /b/x 2>/dev/null && echo yes || echo no")
    assert line == "no"


@clause(MOUNTS, "tmpcopyup brings along what the folder held", SHOULD)
def _(lab: Ground) -> None:
    (lab.bundle / "rootfs/kept").mkdir()
    (lab.bundle / "rootfs/kept/file").write_text("old\n")
    script = "cat /kept/file; echo new > /kept/file; grep -c ' /kept ' /proc/self/mountinfo"
    assert mounted(lab, tmpfs("/kept", "tmpcopyup"), script=script) == "old\n1"
    assert (lab.bundle / "rootfs/kept/file").read_text() == "old\n"


@clause(MOUNTS, "a link of the image's cannot lead a mount out of the root")
def _(lab: Ground) -> None:
    outside = lab.folder / "outside"
    outside.mkdir(exist_ok=True)
    (lab.bundle / "rootfs/way").symlink_to(f"../../../../../../..{outside}")
    mounted(lab, tmpfs("/way"), script="true")
    assert "outside" not in Path("/proc/self/mountinfo").read_text()


# --- process --------------------------------------------------------------------------------


@clause(PROCESS, "cwd is where the program stands")
def _(lab: Ground) -> None:
    assert lab.said("pwd", process__cwd="/usr/bin") == "/usr/bin"


@clause(PROCESS, "cwd is an absolute path")
def _(lab: Ground) -> None:
    assert lab.refuses(process__cwd="usr") and lab.refuses(process__cwd=None)


@clause(PROCESS, "env is the program's environment")
def _(lab: Ground) -> None:
    out = lab.said("env", process__env=["PATH=/usr/bin", "A=1", "EMPTY=", "SPACE=a b"]).splitlines()
    assert {"PATH=/usr/bin", "A=1", "EMPTY=", "SPACE=a b"} <= set(out)


@clause(PROCESS, "nothing of the runtime's own environment is in it")
def _(lab: Ground) -> None:
    os.environ["OF_THE_MACHINE"] = "yes"
    try:
        assert "OF_THE_MACHINE" not in lab.said("env")
    finally:
        del os.environ["OF_THE_MACHINE"]


@clause(PROCESS, "args are the program's arguments as they are")
def _(lab: Ground) -> None:
    lab.write(lab.config(process__args=["printf", "%s|", "a b", "", "$HOME", "*"]))
    assert lab.verb("run", ID).out == "a b||$HOME|*|"


@clause(PROCESS, "args has one word at least")
def _(lab: Ground) -> None:
    assert lab.refuses(process__args=[]) and lab.refuses(process__args=None)


@clause(PROCESS, "a program that is not there is an error")
def _(lab: Ground) -> None:
    lab.write(lab.config(process__args=["no-such-program"]))
    assert lab.verb("run", ID).status != 0


@clause(PROCESS, "the exit status is the program's")
def _(lab: Ground) -> None:
    assert lab.run("exit 7").status == 7


@clause(PROCESS, "rlimits are set, soft and hard")
def _(lab: Ground) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096}]
    out = lab.said("cat /proc/self/limits", process__rlimits=limits)
    rows = {line[:25].strip(): line[25:].split()[:2] for line in out.splitlines()}
    assert rows["Max open files"] == ["64", "128"] and rows["Max core file size"] == ["0", "4096"]


@clause(PROCESS, "what rlimits does not name stays as the runtime's")
def _(lab: Ground) -> None:
    out = lab.said("ulimit -s", process__rlimits=[])
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    assert out == ("unlimited" if soft < 0 else str(soft // 1024))


@clause(PROCESS, "a limit that Linux does not have is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(process__rlimits=[{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}])


@clause(PROCESS, "a limit that is named twice is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(process__rlimits=[{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 9}] * 2)


@clause(PROCESS, "terminal: the standard streams are a terminal of the container's own")
def _(lab: Ground) -> None:
    done = lab.in_terminal("tty; for one in 0 1 2; do test -t $one && echo yes; done")
    words = done.out.split()
    assert done.status == 0 and words[0] in ("/dev/pts/0", "/dev/console") and words[1:] == ["yes"] * 3, done


@clause(LINUX, "the bounding, inheritable and ambient sets are those of the document")
def _(lab: Ground) -> None:
    some = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN"], "ambient": []}  # fmt: skip
    config = lab.config(process__capabilities=some, process__args=["sleep", "1000"])
    lab.write(config)
    assert lab.verb("create", ID).status == 0 and lab.verb("start", ID).status == 0
    pid = lab.state()["pid"]
    lab.until(lambda: "sleep" in Path(f"/proc/{pid}/comm").read_text(), "the program")
    rows = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line[:3] == "Cap")
    # execve gives root the permitted set of the bounding one (capabilities(7)).
    assert int(rows["CapBnd"], 16) == 1 << 5 | 1 and int(rows["CapInh"], 16) == 1 and int(rows["CapAmb"], 16) == 0


@clause(LINUX, "an ambient capability reaches a program of another user's")
def _(lab: Ground) -> None:
    config = lab.config(process__capabilities={name: ["CAP_KILL"] for name in SETS}, process__user={"uid": 5, "gid": 5})
    assert "0000000000000020" in lab.said("grep CapEff /proc/self/status", config)


@clause(LINUX, "without capabilities there are none")
def _(lab: Ground) -> None:
    out = lab.said("grep CapEff /proc/self/status", process__capabilities={})
    assert out.split()[1].strip("0") == ""


@clause(LINUX, "noNewPrivileges is set, and not set")
def _(lab: Ground) -> None:
    for wanted in (True, False):
        out = lab.said("grep NoNewPrivs /proc/self/status", process__noNewPrivileges=wanted)
        assert out.split()[1] == str(int(wanted))


@clause(LINUX, "oomScoreAdj is written, and without it stays as it was")
def _(lab: Ground) -> None:
    assert lab.said("cat /proc/self/oom_score_adj", process__oomScoreAdj=321) == "321"
    assert lab.said("cat /proc/self/oom_score_adj") == Path("/proc/self/oom_score_adj").read_text().strip()


@clause(LINUX, "apparmorProfile is the program's", needs="apparmor")
def _(lab: Ground) -> None:
    assert lab.said("cat /proc/self/attr/current", process__apparmorProfile="unconfined").startswith("unconfined")
    assert lab.refuses(process__apparmorProfile="there-is-no-such-profile")


@clause(LINUX, "ioPriority is the program's", SHOULD)
def _(lab: Ground) -> None:
    out = lab.said("ionice", process__ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0}, ociVersion="1.1.0")
    assert out.startswith("idle")


@clause(LINUX, "scheduler is the program's", SHOULD)
def _(lab: Ground) -> None:
    wanted = {"policy": "SCHED_BATCH", "nice": 5}
    assert "SCHED_BATCH" in lab.said("chrt -p $$", process__scheduler=wanted, ociVersion="1.1.0")


@clause(USER, "uid, gid and additionalGids are the program's")
def _(lab: Ground) -> None:
    user = {"uid": 12, "gid": 34, "additionalGids": [56, 78]}
    out = lab.said("grep -E '^(Uid|Gid|Groups)' /proc/self/status", process__user=user).splitlines()
    assert [line.split()[1:] for line in out] == [["12"] * 4, ["34"] * 4, out[2].split()[1:]]
    assert {"56", "78"} <= set(out[2].split()[1:]) <= {"34", "56", "78"}


@clause(USER, "umask is the program's", SHOULD)
def _(lab: Ground) -> None:
    assert lab.said("umask", process__user={"uid": 0, "gid": 0, "umask": 0o027}) == "0027"


@clause(NAMES, "hostname is the name in the container")
def _(lab: Ground) -> None:
    assert lab.said("cat /proc/sys/kernel/hostname", hostname="a-box") == "a-box"


@clause(NAMES, "hostname needs a namespace of its own")
def _(lab: Ground) -> None:
    kinds = [{"type": kind} for kind in ("pid", "mount", "ipc", "network")]
    assert lab.refuses(hostname="a-box", linux__namespaces=kinds)


@clause(NAMES, "domainname is the domain in the container")
def _(lab: Ground) -> None:
    out = lab.said("cat /proc/sys/kernel/domainname", domainname="example.org", ociVersion="1.1.0")
    assert out == "example.org"


@clause(OTHER, "what the runtime does not know is passed over")
def _(lab: Ground) -> None:
    assert lab.said("echo runs", unknown={"a": 1}, process__unknown=True, linux__unknown=[]) == "runs"


@clause(OTHER, "a value that a known field may not have is an error")
def _(lab: Ground) -> None:
    assert lab.refuses(process__cwd=7) and lab.refuses(process__args="sh") and lab.refuses(mounts="none")


@clause(OTHER, "what is no JSON is an error")
def _(lab: Ground) -> None:
    assert lab.refuses("{") and lab.refuses("[]") and lab.refuses(json.dumps("config"))


@clause("config.md, Annotations", "keys and values are texts")
def _(lab: Ground) -> None:
    assert lab.refuses(annotations={"key": 7})


@clause("config.md, Annotations", "any key is taken")
def _(lab: Ground) -> None:
    assert lab.said("echo runs", annotations={"org.example.key": "", "x": "y"}) == "runs"
