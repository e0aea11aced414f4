"""Top floor: six containers that do not start, each broken in one place of its config.json.

Owns: each breakage as somebody makes it by mistake, the step of the birth at which it ends, what the container
is for, and how it is seen from outside whether it does that.  Notebook 10 shows them; the exercise `six-patients`
has them healed.

They differ in nothing else: a program that sleeps, in a root file system that has the machine's own programs.

Read: labkit/runtime/life/stepping.py for the steps; the OCI runtime specification, config.md and config-linux.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from labkit.kernel.namespaces import inode
from labkit.runtime.document import template
from labkit.runtime.life.stepping import FIELDS

STEPS = tuple(FIELDS)  # of a birth, in their order
PURPOSE = "purpose"  # the annotation that says what a container is for
SETTINGS = "/etc/app.conf"  # in the container
PORTS = "net.ipv4.ip_unprivileged_port_start"
CALLS = ("mkdir", "mkdirat")
Config = dict[str, Any]


class Bundle(NamedTuple):
    """One of the six: its folder, and what is different in each run."""

    folder: Path
    pod: int  # a process with a network namespace of its own
    seconds: int  # so long the program sleeps
    word: str  # stands in the machine's settings
    port: int

    @property
    def config(self) -> Config:
        """Its config.json."""
        found: Config = json.loads((self.folder / "config.json").read_text())
        return found

    @property
    def noted(self) -> Path:
        """Where the hook of one of them copies the container's state."""
        return self.folder / "noted.json"


class Patient(NamedTuple):
    """A breakage: `spoil` gives a good document a purpose and one mistake; `seen` finds the purpose unfulfilled."""

    step: str  # the first that a birth of it does not make
    spoil: Callable[[Config, Bundle], None]
    seen: Callable[[int, Bundle, Callable[[int, str], str]], str]  # what is wrong with a living one; "" when nothing is


def one_word(config: Config, bundle: Bundle) -> None:
    """A command line where a list of words belongs"""
    config["annotations"][PURPOSE] = f"sleeps for {bundle.seconds} seconds"
    config["process"]["args"] = [f"sleep {bundle.seconds}"]


def folder_on_file(config: Config, bundle: Bundle) -> None:
    """The folder is mounted, and not the file in it"""
    source = bundle.folder / "settings"
    source.mkdir()
    (source / "app.conf").write_text(bundle.word)
    config["annotations"][PURPOSE] = f"has the machine's {source.name}/app.conf as its {SETTINGS}"
    config["mounts"].append(
        {"destination": SETTINGS, "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
    )


def misnamed_setting(config: Config, bundle: Bundle) -> None:
    """A kernel setting by a name that the kernel does not have"""
    config["annotations"][PURPOSE] = f"any user may listen on its ports from {bundle.port} on"
    config["linux"]["sysctl"] = {PORTS.replace("ip_", ""): str(bundle.port)}


def hook_without_a_name(config: Config, bundle: Bundle) -> None:
    """A hook whose args lack the program's own name, which comes first"""
    config["annotations"][PURPOSE] = f"a hook copies its state into {bundle.noted.name}, before it starts"
    hook = {"path": "/usr/bin/cp", "args": ["/dev/stdin", str(bundle.noted)], "timeout": 30}
    config["hooks"] = {"createRuntime": [hook]}


def no_namespace(config: Config, bundle: Bundle) -> None:
    """The path of a namespace that is none"""
    config["annotations"][PURPOSE] = f"is in the network namespace of process {bundle.pod}"
    network = next(one for one in config["linux"]["namespaces"] if one["type"] == "network")
    network["path"] = f"/proc/{bundle.pod}/net"


def forbidden_start(config: Config, bundle: Bundle) -> None:
    """A filter that forbids what the container's own start needs"""
    config["annotations"][PURPOSE] = "can make no folder: it tries once, and then sleeps"
    config["process"]["args"] = ["sh", "-c", f"mkdir /made; exec sleep {bundle.seconds}"]
    rule = {"names": [*CALLS, "execve"], "action": "SCMP_ACT_ERRNO"}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def _settings(pid: int, bundle: Bundle, setting: Callable[[int, str], str]) -> str:
    try:
        text = Path(f"/proc/{pid}/root{SETTINGS}").read_text()
    except OSError as error:
        return f"{SETTINGS} in it cannot be read: {error.strerror}"
    return "" if text == bundle.word else f"{SETTINGS} in it is not the machine's file, but says {text[:40]!r}"


def _port(pid: int, bundle: Bundle, setting: Callable[[int, str], str]) -> str:
    found = setting(pid, PORTS)
    return "" if found == str(bundle.port) else f"in it ports below {found} are root's alone, instead of {bundle.port}"


def _noted(pid: int, bundle: Bundle, setting: Callable[[int, str], str]) -> str:
    try:
        state = json.loads(bundle.noted.read_text())
    except (OSError, ValueError):
        return f"no hook has copied its state into {bundle.noted.name}"
    return "" if state.get("pid") == pid else f"{bundle.noted.name} tells of another process"


def _network(pid: int, bundle: Bundle, setting: Callable[[int, str], str]) -> str:
    if inode("net", pid) == inode("net", bundle.pod):
        return ""
    own = "the machine's" if inode("net", pid) == inode("net", "self") else "of its own"
    return f"it is in a network namespace that is {own}, and not that of process {bundle.pod}"


def _forbidden(pid: int, bundle: Bundle, setting: Callable[[int, str], str]) -> str:
    made = (bundle.folder / "rootfs/made").exists()
    return "it has made a folder, which the filter is there to forbid" if made else ""


def _nothing(pid: int, bundle: Bundle, setting: Callable[[int, str], str]) -> str:
    return ""


# Not in the order of their steps: that is to be found out.
PATIENTS = {
    "one": Patient("dropped", one_word, _nothing),
    "two": Patient("mounted", folder_on_file, _settings),
    "three": Patient("masked", misnamed_setting, _port),
    "four": Patient("hooked", hook_without_a_name, _noted),
    "five": Patient("cloned", no_namespace, _network),
    "six": Patient("executed", forbidden_start, _forbidden),
}


def write(name: str, bundle: Bundle) -> None:
    """Make the bundle of one of the six in its folder, which is there and empty."""
    root = bundle.folder / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / Path(SETTINGS).name).write_text("the image's own\n")
    for link in ("bin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    config = template.spec() | {"annotations": {}}
    config["process"].update(terminal=False, args=["sleep", str(bundle.seconds)])
    config["root"]["readonly"] = False
    config["mounts"] = [one for one in config["mounts"] if one["type"] not in ("cgroup", "sysfs")]
    config["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]})
    PATIENTS[name].spoil(config, bundle)
    (bundle.folder / "config.json").write_text(json.dumps(config, indent=1))


class Ward:
    """The six in a folder of a notebook's; leaving the `with`, or close(), removes all of it.

    with Ward("/var/tmp/six") as ward:
        ward["one"].folder
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        null = subprocess.DEVNULL
        self._pod = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=null, stdout=null, stderr=null)
        self.bundles: dict[str, Bundle] = {}
        for number, name in enumerate(PATIENTS, 1):
            one = self.folder / name
            one.mkdir(parents=True)
            self.bundles[name] = Bundle(one, self._pod.pid, 1000 * number, "the machine's own\n", 80)
            write(name, self.bundles[name])

    def __getitem__(self, name: str) -> Bundle:
        return self.bundles[name]

    def close(self) -> None:
        """Remove the folder, and end the process whose network one of them is to share. Twice is fine."""
        self._pod.kill()
        self._pod.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
