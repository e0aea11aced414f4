"""Top floor: the check of one-thing.

Owns: a container with the profile, a program in it that tries the forbidden and the allowed, and what it must say.
Read: seccomp(2); the OCI runtime specification, config-linux.md, "Seccomp".
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.runtime.document import template

PROBE = """
import os
def tries(name, deed):
    try:
        deed()
        print(name, 0)
    except OSError as error:
        print(name, error.errno)
tries("mkdir", lambda: os.mkdir("/a"))
tries("mkdirat", lambda: os.mkdir("b", dir_fd=os.open("/", os.O_RDONLY)))
tries("writing a file", lambda: open("/f", "w").close())
tries("making a symlink", lambda: os.symlink("f", "/l"))
tries("renaming a file", lambda: os.rename("/f", "/g"))
tries("changing a file's mode", lambda: os.chmod("/g", 0o600))
tries("starting a program", lambda: os.spawnv(os.P_WAIT, "/usr/bin/true", ["true"]))
"""
KILLED = 128 + 31  # SIGSYS
FORBIDDEN = ("mkdir", "mkdirat")


def check(profile: Callable[[], dict[str, Any]], lab: Ground) -> None:
    """Run the probe under the profile, and compare what it met."""
    wanted = lab.call(profile)
    if not isinstance(wanted, dict) or "defaultAction" not in wanted:
        raise Wrong("profile() gives no object with a defaultAction: the answer to every call that no rule names")
    status, said = contained(lab.folder(), wanted)
    if status == KILLED:
        raise Wrong("the program was killed by signal 31 (SIGSYS): EPERM is an answer that a program can live with")
    found = {name: int(number) for name, _, number in (line.rpartition(" ") for line in said.splitlines()) if name}
    if status or set(FORBIDDEN) - found.keys():
        raise Wrong(f"the container does not start with it: {said.strip().splitlines()[0] if said.strip() else status}")
    for name in FORBIDDEN:
        if not found[name]:
            raise Wrong(f"a folder was made all the same, by {name}(2)")
        if found[name] != errno.EPERM:
            raise Wrong(f"{name}(2) ends with {errno.errorcode[found[name]]}, and not with EPERM")
    for name, number in found.items():
        if number and name not in FORBIDDEN:
            raise Wrong(f"{name} does not work any more: {errno.errorcode[number]}")


def contained(folder: Path, seccomp: dict[str, Any]) -> tuple[int, str]:
    """The probe's status and words in a container that has the machine's own programs, and this filter."""
    (folder / "rootfs").mkdir()
    for name in ("bin", "lib", "lib64"):
        (folder / "rootfs" / name).symlink_to(f"usr/{name}")
    config = template.spec()
    config["process"].update(terminal=False, args=["/usr/bin/python3", "-c", PROBE])
    config["root"]["readonly"] = False
    # The machine's, and not one that this image would have to bring.
    config["mounts"] = [one for one in config["mounts"] if one["type"] != "cgroup"]
    config["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]})
    config["linux"]["seccomp"] = seccomp
    (folder / "config.json").write_text(json.dumps(config))
    words = [sys.executable, "-m", "labkit.runtime.life.command", "--root", str(folder / "state"), "run", folder.name]
    done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, done.stdout or done.stderr
