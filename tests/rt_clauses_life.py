"""The specification's runtime.md and bundle.md: the state, the operations, the life cycle and its hooks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from rt_clauses import ID, MAY, SHOULD, Ground, clause

BUNDLE = "bundle.md"
STATE, CREATE, START = "runtime.md, State", "runtime.md, Create", "runtime.md, Start"
KILL, DELETE, LIFE = "runtime.md, Kill", "runtime.md, Delete", "runtime.md, Lifecycle"
HOOKS = "config.md, POSIX-platform Hooks"
BEFORE = ("prestart", "createRuntime", "createContainer")


@clause(BUNDLE, "config.json lies in the root of the bundle")
def _(lab: Ground) -> None:
    assert lab.verb("create", ID).status != 0
    assert lab.said("echo here") == "here"


@clause(BUNDLE, "the root file system is the folder that root.path names")
def _(lab: Ground) -> None:
    (lab.bundle / "rootfs").rename(lab.bundle / "elsewhere")
    (lab.bundle / "elsewhere/mark").touch()
    assert lab.said("ls /mark", root__path="elsewhere") == "/mark"


@clause(STATE, "ociVersion, id, status, pid and bundle are told")
def _(lab: Ground) -> None:
    state = lab.created()
    assert state["id"] == ID and state["status"] == "created" and state["pid"] > 1
    assert state["bundle"] == str(lab.bundle) and state["ociVersion"].count(".") == 2


@clause(STATE, "pid is the container's process as the runtime's side numbers it")
def _(lab: Ground) -> None:
    state = lab.started("sleep 1234")
    lab.until(lambda: b"1234" in Path(f"/proc/{state['pid']}/cmdline").read_bytes(), "the program")


@clause(STATE, "created, running and stopped follow each other")
def _(lab: Ground) -> None:
    assert lab.created("sleep 0.2")["status"] == "created"
    assert lab.verb("start", ID).status == 0
    assert lab.state()["status"] in ("running", "stopped")
    lab.ended()


@clause(STATE, "the annotations of config.json are in it")
def _(lab: Ground) -> None:
    assert lab.created(annotations={"example.key": "value"})["annotations"]["example.key"] == "value"


@clause(STATE, "of a container that is not there it is an error")
def _(lab: Ground) -> None:
    assert lab.verb("state", "nobody").status != 0


@clause(CREATE, "an id that is in use is an error, and changes nothing")
def _(lab: Ground) -> None:
    before = lab.started()
    assert lab.verb("create", ID).status != 0
    assert lab.state() == before


@clause(CREATE, "everything is applied but the program, which does not run yet")
def _(lab: Ground) -> None:
    state = lab.created("touch /ran; sleep 1000")
    time.sleep(0.2)
    assert not (lab.bundle / "rootfs/ran").exists() and Path(f"/proc/{state['pid']}").exists()
    assert os.readlink(f"/proc/{state['pid']}/ns/mnt") != os.readlink("/proc/self/ns/mnt")


@clause(CREATE, "a document that cannot be applied is an error, and no container is left")
def _(lab: Ground) -> None:
    assert lab.refuses(linux__namespaces=[{"type": "nonsense"}])


@clause(CREATE, "what changes in config.json afterwards has no effect")
def _(lab: Ground) -> None:
    lab.created("touch /first; sleep 1000")
    lab.write(lab.config(process__args=["sh", "-c", "touch /second; sleep 1000"]))
    assert lab.verb("start", ID).status == 0
    lab.until(lambda: (lab.bundle / "rootfs/first").exists(), "the first program")
    assert not (lab.bundle / "rootfs/second").exists()


@clause(CREATE, "without a config.json there is an error")
def _(lab: Ground) -> None:
    assert lab.verb("create", ID).status != 0


@clause(START, "of a container that is not there it is an error")
def _(lab: Ground) -> None:
    assert lab.verb("start", "nobody").status != 0


@clause(START, "it runs the program that the document names")
def _(lab: Ground) -> None:
    lab.started("touch /ran; sleep 1000")
    lab.until(lambda: (lab.bundle / "rootfs/ran").exists(), "the program")


@clause(START, "of a container that runs it is an error, and has no effect")
def _(lab: Ground) -> None:
    before = lab.started()
    assert lab.verb("start", ID).status != 0
    assert lab.state() == before


@clause(START, "of a container that has stopped it is an error")
def _(lab: Ground) -> None:
    lab.started("true")
    lab.ended()
    assert lab.verb("start", ID).status != 0


@clause(START, "without process in the document it is an error", needs="")
def _(lab: Ground) -> None:
    config = lab.config()
    del config["process"]
    lab.write(config)
    assert lab.verb("create", ID).status != 0 or lab.verb("start", ID).status != 0


@clause(KILL, "of a container that is not there it is an error")
def _(lab: Ground) -> None:
    assert lab.verb("kill", "nobody", "KILL").status != 0


@clause(KILL, "of a container that has stopped it is an error")
def _(lab: Ground) -> None:
    lab.started("true")
    lab.ended()
    assert lab.verb("kill", ID, "TERM").status != 0


@clause(KILL, "the signal arrives at the container's process")
def _(lab: Ground) -> None:
    lab.started("trap 'touch /heard; exit 0' USR1; touch /ready; while :; do sleep 0.05; done")
    lab.until(lambda: (lab.bundle / "rootfs/ready").exists(), "the trap")
    assert lab.verb("kill", ID, "USR1").status == 0
    lab.ended()
    assert (lab.bundle / "rootfs/heard").exists()


@clause(KILL, "one that is created can be ended by it")
def _(lab: Ground) -> None:
    lab.created()
    assert lab.verb("kill", ID, "KILL").status == 0
    lab.ended()


@clause(DELETE, "of a container that is not there it is an error")
def _(lab: Ground) -> None:
    assert lab.verb("delete", "nobody").status != 0


@clause(DELETE, "of a container that runs it is an error, and has no effect")
def _(lab: Ground) -> None:
    before = lab.started()
    assert lab.verb("delete", ID).status != 0
    assert lab.state() == before


@clause(DELETE, "of one that is created, and so has not stopped, it is an error")
def _(lab: Ground) -> None:
    lab.created()
    assert lab.verb("delete", ID).status != 0


@clause(DELETE, "what create made is gone, and the id is free again")
def _(lab: Ground) -> None:
    state = lab.started("true", linux__cgroupsPath="/clause-cgroup")
    lab.ended()
    assert lab.verb("delete", ID).status == 0
    assert lab.verb("state", ID).status != 0 and not Path(f"/proc/{state['pid']}/root/bin").exists()
    assert not Path("/sys/fs/cgroup/clause-cgroup").exists()
    lab.created()


@clause(DELETE, "what create did not make stays")
def _(lab: Ground) -> None:
    lab.started("true")
    lab.ended()
    assert lab.verb("delete", ID).status == 0
    assert (lab.bundle / "config.json").exists() and (lab.bundle / "shared/file").exists()


# --- hooks ----------------------------------------------------------------------------------


def hook(lab: Ground, name: str, *, script: str = "", **more: Any) -> dict[str, Any]:
    """A hook that adds its name to the file `order`, and keeps its standard input."""
    script = script or f"cat > {lab.bundle}/{name}.state; echo {name} >> {lab.bundle}/order"
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], **more}


def order(lab: Ground) -> list[str]:
    file = lab.bundle / "order"
    return file.read_text().split() if file.exists() else []


@clause(HOOKS, "before create returns: prestart, createRuntime and createContainer, in this order")
def _(lab: Ground) -> None:
    lab.created(hooks={name: [hook(lab, name)] for name in reversed(BEFORE)})
    assert order(lab) == list(BEFORE)


@clause(HOOKS, "startContainer belongs to start, and comes before the program")
def _(lab: Ground) -> None:
    (lab.bundle / "rootfs/note").touch()
    inner = {"path": "/bin/sh", "args": ["sh", "-c", "echo hook >> /note"], "env": ["PATH=/usr/bin"]}
    lab.created("echo program >> /note; sleep 1000", hooks={"startContainer": [inner]})
    assert (lab.bundle / "rootfs/note").read_text() == ""
    assert lab.verb("start", ID).status == 0
    lab.until(lambda: (lab.bundle / "rootfs/note").read_text().split() == ["hook", "program"], "hook and program")


@clause(HOOKS, "poststart comes with start, poststop with delete")
def _(lab: Ground) -> None:
    lab.created("true", hooks={name: [hook(lab, name)] for name in ("poststart", "poststop")})
    assert order(lab) == []
    assert lab.verb("start", ID).status == 0
    lab.ended()
    assert order(lab) == ["poststart"]
    assert lab.verb("delete", ID).status == 0 and order(lab) == ["poststart", "poststop"]


@clause(HOOKS, "several of a kind run in the order of the list")
def _(lab: Ground) -> None:
    lab.created(hooks={"createRuntime": [hook(lab, name) for name in ("one", "two", "three")]})
    assert order(lab) == ["one", "two", "three"]


@clause(HOOKS, "the state comes on standard input")
def _(lab: Ground) -> None:
    state = lab.created(hooks={name: [hook(lab, name)] for name in BEFORE}, annotations={"a.b": "c"})
    for name in BEFORE:
        found = json.loads((lab.bundle / f"{name}.state").read_text())
        assert (found["id"], found["pid"], found["bundle"]) == (ID, state["pid"], str(lab.bundle)), name
        assert found["status"] in ("creating", "created") and found["annotations"] == {"a.b": "c"}


@clause(HOOKS, "createRuntime runs among the runtime's namespaces, createContainer among the container's")
def _(lab: Ground) -> None:
    names = {name: f"readlink /proc/self/ns/uts > {lab.bundle}/{name}.uts" for name in BEFORE[1:]}
    state = lab.created(hooks={name: [hook(lab, name, script=script)] for name, script in names.items()})
    found = {name: (lab.bundle / f"{name}.uts").read_text().strip() for name in names}
    assert found["createRuntime"] == os.readlink("/proc/self/ns/uts")
    assert found["createContainer"] == os.readlink(f"/proc/{state['pid']}/ns/uts")


@clause(HOOKS, "args and env are the hook's own, and nothing else")
def _(lab: Ground) -> None:
    script = f'echo "$0 $1" > {lab.bundle}/seen; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= >> {lab.bundle}/seen'
    one = {"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "first"], "env": ["PATH=/usr/bin:/bin", "A=b c"]}
    lab.created(hooks={"createRuntime": [one]})
    assert sorted((lab.bundle / "seen").read_text().splitlines()) == ["A=b c", "PATH=/usr/bin:/bin", "zero first"]


@clause(HOOKS, "one that fails before start is an error, and the container is gone")
def _(lab: Ground) -> None:
    for name in BEFORE:
        assert lab.refuses(hooks={name: [hook(lab, name, script="exit 3")]}), name


@clause(HOOKS, "a startContainer hook that fails is an error, and the program does not run")
def _(lab: Ground) -> None:
    lab.created("touch /ran", hooks={"startContainer": [{"path": "/bin/false"}]})
    lab.verb("start", ID)
    lab.ended()
    assert not (lab.bundle / "rootfs/ran").exists()


@clause(HOOKS, "one that takes longer than its timeout is ended, and has failed")
def _(lab: Ground) -> None:
    began = time.monotonic()
    assert lab.refuses(hooks={"createRuntime": [hook(lab, "slow", script="exec sleep 15", timeout=1)]})
    assert time.monotonic() - began < 10


@clause(HOOKS, "a poststop hook that fails stops neither the next one nor delete")
def _(lab: Ground) -> None:
    lab.started("true", hooks={"poststop": [hook(lab, "bad", script="exit 3"), hook(lab, "good")]})
    lab.ended()
    assert lab.verb("delete", ID).status == 0
    assert order(lab) == ["good"] and lab.verb("state", ID).status != 0


@clause(HOOKS, "the path is absolute")
def _(lab: Ground) -> None:
    assert lab.refuses(hooks={"createRuntime": [{"path": "true"}]})


@clause(HOOKS, "the timeout is more than nothing")
def _(lab: Ground) -> None:
    assert lab.refuses(hooks={"createRuntime": [hook(lab, "never", timeout=0)]})


@clause(LIFE, "poststop hooks run for a container that could not be created", SHOULD)
def _(lab: Ground) -> None:
    hooks = {"createRuntime": [hook(lab, "bad", script="exit 3")], "poststop": [hook(lab, "after")]}
    assert lab.refuses(hooks=hooks)
    assert order(lab) == ["after"]


@clause(LIFE, "the container ends when its process does")
def _(lab: Ground) -> None:
    state = lab.started("sleep 1001 & exec sleep 1002")
    os.kill(state["pid"], signal.SIGKILL)
    lab.ended()


@clause(LIFE, "a bundle that is moved away after create does not stop start, kill and delete", MAY)
def _(lab: Ground) -> None:
    lab.created("sleep 1000")
    shutil.copytree(lab.bundle, lab.folder / "kept", symlinks=True, ignore=shutil.ignore_patterns("rootfs"))
    (lab.bundle / "config.json").unlink()
    assert lab.verb("start", ID).status == 0 and lab.verb("kill", ID, "KILL").status == 0
    lab.ended()
    shutil.rmtree(lab.folder / "kept")
    assert lab.verb("delete", ID).status == 0
