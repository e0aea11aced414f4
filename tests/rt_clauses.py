"""The OCI runtime specification clause by clause: what a clause is, and the ground on which a runtime is asked.

As a program (`python -m bench.machine`'s way: process 1 of a machine within this machine) it asks every clause of
every runtime and writes clause → runtime → "passed", "failed: why" or "not here: why" as JSON.
The clauses stand in rt_clauses_life, rt_clauses_process and rt_clauses_linux; the sentences are ours, the section
names and the levels (MUST, SHOULD) the specification's, 1.2.1.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pty
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine
from labkit.runtime.document import template

Config = dict[str, Any]
MUST, SHOULD, MAY = "MUST", "SHOULD", "MAY"
ID = "clause"
USR = {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}
PATIENCE = 20  # seconds; hooks that hang are asked about too


class NotHere(Exception):
    """This machine cannot show it."""


class Done(NamedTuple):
    """A command's end: its status and all that it printed."""

    status: int
    out: str


class Ground:
    """One runtime, a fresh bundle, and what is left of a container when the clause has been asked."""

    def __init__(self, words: list[str], folder: Path, given: dict[str, str]) -> None:
        self.words, self.folder, self.given = words, folder, given
        self.bundle = folder / "bundle"
        self.ids = {ID}

    def __enter__(self) -> Ground:
        shutil.rmtree(self.bundle, ignore_errors=True)
        (self.bundle / "rootfs").mkdir(parents=True)
        (self.bundle / "shared").mkdir()
        (self.bundle / "shared/file").write_text("shared\n")
        for name in ("bin", "lib", "lib64", "sbin"):
            (self.bundle / "rootfs" / name).symlink_to(f"usr/{name}")
        return self

    def __exit__(self, *_: object) -> None:
        for identifier in self.ids:
            self.verb("delete", "--force", identifier)

    def config(self, **changes: Any) -> Config:
        """A document whose fields are replaced by path: config(process__cwd="/usr", hostname="box")."""
        config = template.spec() | {"ociVersion": "1.0.2"}  # the oldest of the peers knows no later one
        config["process"] |= {"terminal": False}
        config["process"]["env"] = ["PATH=/usr/bin:/usr/sbin"]
        config["root"]["readonly"] = False
        config["mounts"].append(copy.deepcopy(USR))
        for path, value in changes.items():
            *above, last = path.split("__")
            here = config
            for name in above:
                here = here.setdefault(name, {})
            if value is None:
                here.pop(last, None)
            else:
                here[last] = value
        return config

    def write(self, config: Any) -> None:
        """config.json of the bundle."""
        (self.bundle / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))

    def verb(self, *words: str, stdin: str = "", wait: float = PATIENCE) -> Done:
        """labkit-runtime WORDS, in the bundle; what it starts may keep the file that it prints into."""
        file = self.folder / "said"
        with file.open("w+") as said:
            done = subprocess.run([*self.words, *words], cwd=self.bundle, input=stdin.encode(), stdout=said,
                                  stderr=said, timeout=wait)  # fmt: skip
        return Done(done.returncode, file.read_text(errors="replace"))

    def run(self, script: str, config: Config | None = None, **changes: Any) -> Done:
        """`run` of a shell script in a container."""
        config = self.config(**changes) if config is None else config
        config["process"]["args"] = ["sh", "-c", script]
        self.write(config)
        return self.verb("run", ID)

    def said(self, script: str, config: Config | None = None, **changes: Any) -> str:
        """What the script printed; AssertionError when it does not end with 0."""
        done = self.run(script, config, **changes)
        assert done.status == 0, f"status {done.status}: {done.out[-300:]}"
        return done.out.strip()

    def in_terminal(self, script: str) -> Done:
        """`run` of a shell script whose streams are a terminal, as somebody at a keyboard has it."""
        config = self.config(process__terminal=True)
        config["process"]["args"] = ["sh", "-c", script]
        self.write(config)
        outer, inner = pty.openpty()
        with subprocess.Popen(
            [*self.words, "run", ID], cwd=self.bundle, stdin=inner, stdout=inner, stderr=inner
        ) as run:
            os.close(inner)
            said = b""
            try:
                while part := os.read(outer, 1000):
                    said += part
            except OSError:
                pass  # EIO: the other end is closed
            status = run.wait(PATIENCE)
        os.close(outer)
        return Done(status, said.decode(errors="replace"))

    def without_cgroups(self) -> bool:
        """Whether the runtime was told to do without."""
        return "--cgroup-manager=disabled" in self.words

    def refuses(self, config: Any = None, **changes: Any) -> bool:
        """`create` fails, and leaves no container."""
        self.write(self.config(**changes) if config is None else config)
        done = self.verb("create", ID)
        return done.status != 0 and self.verb("state", ID).status != 0

    def created(self, script: str = "sleep 1000", config: Config | None = None, **changes: Any) -> dict[str, Any]:
        """`create`, and the container's state."""
        config = self.config(**changes) if config is None else config
        config["process"]["args"] = ["sh", "-c", script]
        self.write(config)
        done = self.verb("create", ID)
        assert done.status == 0, f"create: {done.out[-300:]}"
        return self.state()

    def started(self, script: str = "sleep 1000", config: Config | None = None, **changes: Any) -> dict[str, Any]:
        """`create` and `start`, and the container's state."""
        self.created(script, config, **changes)
        done = self.verb("start", ID)
        assert done.status == 0, f"start: {done.out[-300:]}"
        return self.state()

    def state(self) -> dict[str, Any]:
        """The verb's answer."""
        done = self.verb("state", ID)
        assert done.status == 0, f"state: {done.out[-300:]}"
        found: dict[str, Any] = json.loads(done.out[done.out.index("{") :])
        return found

    def until(self, wanted: Callable[[], Any], what: str) -> Any:
        """Wait until it is true."""
        deadline = time.monotonic() + 10
        while not (answer := wanted()):
            assert time.monotonic() < deadline, f"{what}: not within ten seconds"
            time.sleep(0.01)
        return answer

    def ended(self) -> None:
        """Wait until the container is stopped."""
        self.until(lambda: self.state()["status"] == "stopped", "the container ends")


class Clause(NamedTuple):
    """section: file and heading; needs: what a machine must have (`GIVEN` of main)."""

    section: str
    level: str
    text: str
    needs: str
    check: Callable[[Ground], None]

    @property
    def name(self) -> str:
        """As the table calls it."""
        return f"{self.section}: {self.text}"


CLAUSES: list[Clause] = []


def clause(section: str, text: str, level: str = MUST, needs: str = "") -> Callable[[Callable[[Ground], None]], None]:
    """Enter a check into the list; it raises AssertionError where the runtime does otherwise."""

    def enter(check: Callable[[Ground], None]) -> None:
        CLAUSES.append(Clause(section, level, text, needs, check))

    return enter


def asked(one: Clause, words: list[str], folder: Path, given: dict[str, str]) -> str:
    """What comes of asking this runtime."""
    if one.needs and one.needs not in given:
        return f"not here: {one.needs}"
    try:
        with Ground(words, folder, given) as ground:
            one.check(ground)
    except NotHere as error:
        return f"not here: {error}"
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)
        where = next((step.line for step in reversed(line) if "rt_clauses_" in step.filename), "")
        return f"failed: {' '.join(str(error).split())[:300] or where} [{type(error).__name__}]"
    return "passed"


def every() -> list[Clause]:
    """All clauses, in the specification's order."""
    import rt_clauses_life
    import rt_clauses_linux
    import rt_clauses_process

    assert rt_clauses_life and rt_clauses_process and rt_clauses_linux
    return sys.modules["rt_clauses"].CLAUSES  # type: ignore[no-any-return]


def main() -> None:
    """As process 1 of a machine: ask them all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--view", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("runtimes", nargs="+", metavar="NAME=WORDS")
    given = parser.parse_args()
    machine.arrange(given.view)
    os.umask(0o022)
    holder = subprocess.Popen(["unshare", "-n", "-u", "-i", "sleep", "infinity"])
    while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    there = {"holder": str(holder.pid)} | ({"limits": "yes"} if given.limits else {})
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        there["apparmor"] = Path("/sys/module/apparmor/parameters/enabled").read_text().strip()
    found: dict[str, dict[str, str]] = {}
    for one in every():
        if given.only in (f"needs:{one.needs}", "") or given.only in one.name:
            found[one.name] = {
                name: asked(one, [*words.split(), "--root", f"/run/{name}"], given.folder, there)
                for name, _, words in (word.partition("=") for word in given.runtimes)
            }
    (given.folder / "clauses").write_text(json.dumps(found))
    holder.kill()


if __name__ == "__main__":
    import rt_clauses  # the module that the clauses enter themselves into

    sys.exit(rt_clauses.main())
