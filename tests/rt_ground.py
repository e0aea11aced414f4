"""Ground for the runtime's parts: a bundle with the kit's busybox, and a child in the namespaces of its config.json."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.kernel import constants as C
from labkit.kernel import namespaces, syscalls
from labkit.runtime.document import template
from labkit.runtime.files import root as files

SLEEP = ("/usr/bin/sleep", "1000")
OCI = {kind.oci: kind.flag for kind in namespaces.KINDS.values()}


def config(**more: Any) -> dict[str, Any]:
    """What `spec` writes, without a terminal, with a root that can be written; `more` replaces whole fields."""
    found = template.spec()
    found["process"]["terminal"] = False
    found["root"]["readonly"] = False
    linux = more.pop("linux", {})
    found["linux"] |= linux
    return found | more


def child(work: Callable[[], Any], flags: int = 0, mapping: str = "") -> Any:
    """What `work` returns in a child in new namespaces, or its error's words.

    mapping -- with CLONE_NEWUSER: the line that goes into uid_map and gid_map
    """
    inward, outward = os.pipe()
    gate, opened = os.pipe()
    pid = syscalls.clone3(flags)
    if pid == 0:
        answer: dict[str, Any] = {"error": "it ended without a word"}
        try:
            os.close(opened)
            os.read(gate, 1)
            if mapping:  # in there, it is nobody until it says that it is root
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            answer = {"value": work()}
        except LabError as error:
            answer = {"error": f"{type(error).__name__} {error}"}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        finally:
            os.write(outward, json.dumps(answer).encode())
            os._exit(0)
    os.close(outward)
    if mapping:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(mapping)
    os.close(gate)
    os.close(opened)
    with os.fdopen(inward) as pipe:
        said = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return said["value"] if "value" in said else said["error"]


def flags_of(document: dict[str, Any]) -> int:
    """The flags of the document's namespaces; the cgroup namespace is left to the child, as the runtime does."""
    return sum(OCI[one["type"]] for one in document["linux"]["namespaces"] if one["type"] != "cgroup")


def inside(document: dict[str, Any], bundle: Path, work: Callable[[], Any] = lambda: None, *,
           no_pivot: bool = False, mapping: str = "") -> Any:  # fmt: skip
    """What `work` sees in the container's view of files, or the error on the way there."""
    try:
        trees = files.prepare(document, bundle)
    except LabError as error:
        return f"{type(error).__name__} {error}"

    def all_steps() -> Any:
        if "cgroup" in {one["type"] for one in document["linux"]["namespaces"]}:
            syscalls.call("unshare", C.CLONE_NEWCGROUP)
        root = files.build(document, bundle, trees)
        files.enter(document, root, no_pivot=no_pivot)
        os.close(root)
        files.finish(document)
        return work()

    try:
        return child(all_steps, flags_of(document), mapping)
    finally:
        for fd in trees.values():
            os.close(fd)


def with_programs(document: dict[str, Any], bundle: Path) -> None:
    """Show the machine's own programs in the container: some oracle has to be started in it."""
    for name in ("bin", "lib", "lib64"):
        (bundle / "rootfs" / name).symlink_to(f"usr/{name}")
    entry = {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}
    document["mounts"] = [*document["mounts"], entry]


def mountinfo() -> list[list[str]]:
    """[place, root of the mount, its options, type, options of the file system] of each mount, by place."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        words, tail = left.split(), right.split()
        found.append([words[4], words[3], words[5], tail[0], tail[2], " ".join(words[6:])])
    return sorted(found)


class Ground:
    """A bundle, and a runtime whose containers are remembered beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = config()
        # A hybrid machine gives runc version 1 here; the lab's machine compares cgroups.
        self.config["mounts"] = [one for one in self.config["mounts"] if one["type"] != "cgroup"]
        self.kinds("pid", "network", "ipc", "uts", "mount")
        (folder / "rootfs").mkdir()
        with_programs(self.config, folder)

    def kinds(self, *names: str) -> None:
        """The new namespaces."""
        self.config["linux"]["namespaces"] = [{"type": name} for name in names]

    def process(self, *arguments: str, **more: Any) -> None:
        """What is to run."""
        self.config["process"] |= {"args": list(arguments), **more}

    def write(self) -> None:
        """config.json, as it is now."""
        (self.folder / "config.json").write_text(json.dumps(self.config))

    def __call__(self, *words: str, check: bool = False, **extra: Any) -> subprocess.CompletedProcess[str]:
        """labkit-runtime WORDS, in the bundle."""
        self.write()
        extra = {"text": True, "timeout": 60, "stdin": subprocess.DEVNULL, **extra}
        # Into files: a pipe would stay open as long as the container that has it for its output.
        with (self.folder / "out").open("w+") as out, (self.folder / "err").open("w+") as err:
            done = subprocess.run(self.words(*words), cwd=self.folder, stdout=out, stderr=err, **extra)
        done.stdout, done.stderr = (self.folder / "out").read_text(), (self.folder / "err").read_text()
        assert not check or done.returncode == 0, done.stderr
        return done

    def words(self, *words: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "labkit.runtime.life.command", "--root", str(self.folder / "state"), *words]

    def runc(self, *words: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """runc WORDS, in the bundle."""
        self.write()
        extra = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL, **extra}
        return subprocess.run(["runc", "--root", str(self.folder / "runc"), *words], cwd=self.folder, **extra)

    def state(self, name: str) -> dict[str, Any]:
        """What `state` says."""
        found: dict[str, Any] = json.loads(self("state", name, check=True).stdout)
        return found

    def left(self) -> list[str]:
        """What is remembered."""
        folder = self.folder / "state"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@contextmanager
def ground() -> Iterator[Ground]:
    """A ground whose containers are gone in the end."""
    folder = Path(f"/tmp/rt-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    made = Ground(folder)
    try:
        yield made
    finally:
        for name in made.left():
            made("delete", "--force", name)
        shutil.rmtree(folder)


def until(done: Callable[[], Any], seconds: float = 20) -> Any:
    """Ask until the answer is true; return it."""
    deadline = time.monotonic() + seconds
    while not (answer := done()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return answer
