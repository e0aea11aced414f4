"""Top floor: the check of hook-network.

Owns: a bundle whose createRuntime hook is the learner's function, and a program in it that calls the machine.
Read: the OCI runtime specification, config.md, "POSIX-platform Hooks"; veth(4), network_namespaces(7).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from labkit.lessons import netground
from labkit.lessons.child import Child
from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.runtime.document import template

PORT = 8000
HOOK = """#!{python}
import json, pickle, sys
sys.path[:] = {path!r}
with open({file!r}, "rb") as file:
    attach = pickle.load(file)
attach(json.load(sys.stdin))
"""
# In the container: which devices there are, and what the machine answers.
PROGRAM = """
import json, socket
names = [name for _, name in socket.if_nameindex()]
try:
    with socket.create_connection(({address!r}, {port}), 3) as line:
        said = line.recv(100).decode()
except TimeoutError:
    said = "no answer"
except OSError as error:
    said = error.strerror
print(json.dumps([names, said]))
"""


def check(attach: Callable[[dict[str, Any]], Any], lab: Ground) -> None:
    """Run the bundle in the fence, which plays the machine."""
    folder, word = lab.folder(), lab.token()
    net = f"10.{lab.number(64, 127)}.{lab.number(0, 255)}"
    machine = lab.child("machine")
    Child.do(machine, netground.own_network)
    server = Child.do(machine, netground.serve, PORT, word)
    (folder / "attach").write_bytes(cloudpickle.dumps(attach))
    hook = folder / "hook"
    hook.write_text(HOOK.format(python=sys.executable, path=sys.path, file=str(folder / "attach")))
    hook.chmod(0o755)
    bundle(folder, str(hook), f"{net}.1", {"net.machine": f"{net}.1/24", "net.container": f"{net}.2/24"})
    status, out, err = Child.do(machine, contained, str(folder), limit=60)
    Child.do(machine, netground.end, [server])
    if status or not out.strip():
        raise Wrong(f"the container was not made, or ended badly: {' '.join((err or out).split())[-300:]}")
    names, said = json.loads(out)
    if "eth0" not in names:
        raise Wrong(f"the container has no device eth0, but {', '.join(names)}")
    if said != f"{word} {net}.2":
        raise Wrong(f"the container cannot reach the machine: {said}")


def bundle(folder: Path, hook: str, address: str, notes: dict[str, str]) -> None:
    """A config.json whose program calls the machine, with the machine's own programs."""
    (folder / "rootfs").mkdir()
    for name in ("bin", "lib", "lib64"):
        (folder / "rootfs" / name).symlink_to(f"usr/{name}")
    config = template.spec() | {"annotations": notes, "hooks": {"createRuntime": [{"path": hook, "env": PATH}]}}
    script = PROGRAM.format(address=address, port=PORT)
    config["process"].update(terminal=False, args=["/usr/bin/python3", "-c", script])
    config["mounts"] = [one for one in config["mounts"] if one["type"] not in ("cgroup", "sysfs")]
    config["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]})
    (folder / "config.json").write_text(json.dumps(config))


PATH = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


def contained(folder: str) -> tuple[int, str, str]:
    """In a child: `labkit-runtime run`; its status, and what was said."""
    words = [sys.executable, "-m", "labkit.runtime.life.command", "--root", f"{folder}/state", "run",
             Path(folder).name]  # fmt: skip
    done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
