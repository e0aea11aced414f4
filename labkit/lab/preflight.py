"""Top floor: everything that would stop the lab, said before anything starts.

Owns: the list of conditions, each with its remedy; installing the missing packages, when
root asks.  Every condition is tried and all that fail are reported at once, so that
nobody mends five things in five rounds.

Read: ss(8), proc_meminfo(5), subuid(5), setpriv(1).
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

from labkit.errors import LabError
from labkit.lab import machine, state
from labkit.lab.image_build import Say, cache

ADMIN = "/usr/sbin:/sbin"  # an ordinary user's PATH often lacks these
DISK_BUILD = 5000  # MB while an image is built: its tree, its archive and its disk
DISK_RUN = 1500  # MB that a machine may write before it gets tight
MEMORY_HOST = 300  # MiB that QEMU itself and the host's other programs need beside the guest's

# program: package.  Debian and Ubuntu name them alike.
RUN_TOOLS = {
    "amd64": {"qemu-system-x86_64": "qemu-system-x86"},
    "arm64": {"qemu-system-aarch64": "qemu-system-arm"},
    "all": {"qemu-img": "qemu-utils", "ssh": "openssh-client", "ssh-keygen": "openssh-client", "setpriv": "util-linux"},
}
BUILD_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "fakeroot": "fakeroot"}
USER_TOOLS = {"newuidmap": "uidmap"}  # an ordinary user builds the image in a user namespace
KEYS = {"/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"}


class Problem(NamedTuple):
    """One reason why the lab would not start, and what a person does about it."""

    why: str
    next: str


def check(*, port: int, publish: int, memory: int, arch: str, building: bool) -> None:
    """Raise one LabError that names everything that is wrong; silence when the lab can start.

    port, publish -- of the host; 0 is chosen later and never taken
    memory -- MiB for the machine
    building -- whether the image has to be built, which needs more tools and disk
    """
    problems = [*ports(port, publish), *room(memory, building), *subordinate_ids(building)]
    if lacking := missing(arch, building):
        problems.append(Problem(f"missing here: {', '.join(lacking)}", install_command(lacking)))
    if problems:
        raise LabError("the lab cannot start on this machine", why="; ".join(problem.why for problem in problems),
                       next="\n        ".join(problem.next for problem in problems))  # fmt: skip


def platform(release: str = "/etc/os-release", system: str = "") -> None:
    """Raise LabError on a host where `vagrant up` is the way; the Makefile asks the same script."""
    script = state.TREE / "vagrant" / "host" / "can-lab.sh"
    done = subprocess.run(["/bin/sh", script, system or os.uname().sysname, release], capture_output=True, text=True)
    if done.returncode:
        found = dict(re.findall(r"^  (why|next): +(.*)$", done.stderr, re.MULTILINE))
        raise LabError("make lab cannot work on this host", why=found.get("why", ""), next=found.get("next", ""))


def ports(port: int, publish: int) -> list[Problem]:
    """Taken ports of 127.0.0.1, with the holder's name where this user may know it."""
    problems = []
    if port and not machine.is_free(port):
        problems.append(Problem(f"port {port} is taken by {holder(port)}", f"make lab PORT={machine.free_port()}"))
    row = range(publish, publish + machine.PUBLISHED) if publish else range(0)
    if taken := [number for number in row if not machine.is_free(number)]:
        who = ", ".join(f"port {number} is taken by {holder(number)}" for number in taken)
        problems.append(Problem(who, f"make lab PUBLISH_PORT={machine.free_run(machine.PUBLISHED)}"))
    return problems


def holder(port: int) -> str:
    """Who listens on a port of this host, in words."""
    if (tool := _which("ss")) is None:
        return "another program (ss, of the package iproute2, would say which)"
    done = subprocess.run([tool, "-Hltnp", f"sport = :{port}"], capture_output=True, text=True)
    found = re.search(r'\("([^"]+)",pid=(\d+)', done.stdout)
    if found is None:
        return "a program of another user"
    name, pid = found.groups()
    if name.startswith("qemu-system") and (lab := _lab_of(int(pid))):
        return f"the lab of another checkout ({lab})"
    return f"{name} (process {pid})"


def _lab_of(pid: int) -> str:
    """The checkout that a QEMU of ours shares; empty for any other."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    shared = [re.sub(r"^local,path=(.*),mount_tag=lab,.*$", r"\1", word) for word in words if "mount_tag=lab," in word]
    return shared[0].replace(",,", ",") if shared else ""


def room(memory: int, building: bool) -> list[Problem]:
    """Too little memory, or too little disk where images and machines lie."""
    problems = []
    available = available_memory()
    if available < memory + MEMORY_HOST:
        fitting = max(1024, (available - MEMORY_HOST) // 256 * 256)
        problems.append(
            Problem(
                f"the machine takes {memory} MiB of memory and {available} MiB are available",
                f"close other programs, or make lab MEMORY={fitting}"
                + ("" if fitting + MEMORY_HOST <= available else " once there is that much"),
            )
        )
    for folder, needed in ((cache(), DISK_BUILD if building else 0), (state.folder(), DISK_RUN)):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if (free := shutil.disk_usage(there).free // 1_000_000) < needed:
            where = "LABKIT_CACHE" if folder == cache() else "XDG_STATE_HOME"
            problems.append(
                Problem(
                    f"{folder} needs {needed} MB of disk and {free} MB are free",
                    f"free some (labkit lab clean removes built images), or {where}=FOLDER make lab",
                )
            )
    return problems


def available_memory() -> int:
    """MiB that a new program can have without swapping: MemAvailable of /proc/meminfo."""
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 1 << 20


def subordinate_ids(building: bool) -> list[Problem]:
    """An ordinary user builds the image's tree with ids of other users; root has them all."""
    if not building or os.geteuid() == 0:
        return []
    name = pwd.getpwuid(os.geteuid()).pw_name
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = [line.split(":") for line in Path(file).read_text().splitlines()] if Path(file).exists() else []
        if not any(len(line) == 3 and line[0] in (name, str(os.geteuid())) and int(line[2]) >= 65536 for line in lines):
            remedy = f"sudo usermod --add-subuids 300000-365535 --add-subgids 300000-365535 {name}"
            return [Problem(f"{name} has no 65536 subordinate ids in {file}", remedy)]
    return []


def missing(arch: str, building: bool) -> list[str]:
    """The packages whose programs are not here, each once, in the order of the tables."""
    tools = {**RUN_TOOLS[arch], **RUN_TOOLS["all"]}
    if building:
        tools |= BUILD_TOOLS | ({} if os.geteuid() == 0 else USER_TOOLS)
    packages = [package for tool, package in tools.items() if _which(tool) is None]
    if building:
        packages += [package for file, package in KEYS.items() if not Path(file).exists()]
    return list(dict.fromkeys(packages))


def _which(tool: str) -> str | None:
    return shutil.which(tool) or shutil.which(tool, path=ADMIN)


def find_admin_tools() -> None:
    """Let the programs that are started from here find what missing() found, mke2fs for one."""
    own = os.environ.get("PATH", "").split(":")
    os.environ["PATH"] = ":".join([*filter(None, own), *(folder for folder in ADMIN.split(":") if folder not in own)])


def install_command(packages: list[str]) -> str:
    """The one command for an ordinary user."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def install(packages: list[str], say: Say) -> None:
    """Install packages as root; raise LabError with apt's own words."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say(f"installing {' '.join(packages)}")
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", "-q", "-q", *words], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise LabError(f"apt-get {words[0]} failed", why=(done.stderr or done.stdout).strip()[-600:],
                           next=install_command(packages).removeprefix("sudo "))  # fmt: skip


def become_owner(tree: Path) -> None:
    """Root in another user's checkout goes on as that user, so that every file keeps its owner.

    Returns when there is nothing to change; otherwise this program starts again as the owner.
    """
    owner = tree.stat().st_uid
    if os.geteuid() != 0 or owner == 0:
        return
    try:
        account = pwd.getpwuid(owner)
    except KeyError:
        raise LabError("cannot start the lab as root for this checkout", next=f"chown -R root {tree}",
                       why=f"it belongs to user {owner}, who has no account on this machine") from None  # fmt: skip
    _again_as(account)


def _again_as(account: pwd.struct_passwd) -> NoReturn:
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "SUDO_"))}
    environment = {**kept, "HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    words = [sys.executable, "-P", "-m", "labkit", *sys.argv[1:]]
    os.execve(sys.executable, words, environment)
