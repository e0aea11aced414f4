"""Reading floor: the census: what the kernel holds now that somebody may have to give back.

Owns: which kinds of things are counted, how each is named, and the difference of two
counts.  Every test, notebook and injected fault must end with the census it began with.

Read: proc_pid_mountinfo(5), cgroups(7), nft(8) on JSON, ip-netns(8), loop(4).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from labkit.kernel import rtnetlink
from labkit.kernel.mounts import find
from labkit.kernel.netlink import Netlink
from labkit.observe import mountinfo

Census = dict[str, list[str]]

# The service manager's units come and go with its timers: their cgroups, and the folders of their credentials.
UNITS = (".slice", ".scope", ".service", ".mount", ".swap")
CREDENTIALS = "/run/credentials/"
# As labkit's processes call themselves; `labkit` alone is the command that asks.
TITLES = ("labkit:", "labkit-")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def take() -> Census:
    """{kind: sorted names} of everything that is counted, as this process may see it."""
    return {kind: sorted(reader()) for kind, reader in READERS.items()}


def difference(before: Census, after: Census) -> list[str]:
    """What came (+) and what went (-), one line each; an empty list when nothing is left behind."""
    lines = []
    for kind in READERS:
        old, new = Counter(before.get(kind, [])), Counter(after.get(kind, []))
        lines += [f"+ {kind} {name}" for name in sorted((new - old).elements())]
        lines += [f"- {kind} {name}" for name in sorted((old - new).elements())]
    return lines


def _mounts() -> list[str]:
    return [f"{mount.kind} on {mount.place}" for mount in mountinfo.read() if not mount.place.startswith(CREDENTIALS)]


def _cgroups() -> list[str]:
    top = find("cgroup2")
    if top is None:
        return []
    found = []
    for folder, below, _ in os.walk(top):
        here = Path(folder)
        if here == top:
            below[:] = [name for name in below if not name.endswith(UNITS)]
            handed = (here / "cgroup.subtree_control").read_text().split()
            found.append(f"/ hands on {' '.join(sorted(handed)) or 'nothing'}")
        else:
            found.append(f"/{here.relative_to(top)}")
    return found


def _links() -> list[str]:
    with Netlink() as netlink:
        return [f"{link.name} ({link.kind or 'device'})" for link in rtnetlink.links(netlink)]


def _rules() -> list[str]:
    """Tables, chains and rules, without handles and counters, which move on by themselves."""
    if os.geteuid() != 0:
        return []
    done = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True)
    if done.returncode:
        return []
    return [rule(item) for item in json.loads(done.stdout)["nftables"] if "metainfo" not in item]


def rule(item: dict[str, dict[str, object]]) -> str:
    """One object of the ruleset as a line, without what moves on by itself."""
    ((kind, fields),) = item.items()
    words = [str(fields[name]) for name in ("family", "table", "chain", "name") if name in fields]
    text = json.dumps(_still(fields.get("expr"))) if "expr" in fields else ""
    return " ".join([kind, *words, text]).strip()


def _still(value: object) -> object:
    if isinstance(value, list):
        return [_still(one) for one in value]
    if isinstance(value, dict):
        return {key: None if key == "counter" else _still(one) for key, one in value.items()}
    return value


def _network_namespaces() -> list[str]:
    return [path.name for path in Path("/run/netns").glob("*")]


def _processes() -> list[str]:
    """Processes of containers (in another pid namespace than ours), and those that call themselves labkit."""
    own = os.readlink("/proc/self/ns/pid")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "comm").read_text().rstrip()
            if (folder / "stat").read_text().rpartition(") ")[2][0] in "ZX":
                continue  # dead; only its parent can take it away
            foreign = os.readlink(folder / "ns" / "pid") != own
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it went, or is somebody else's
        if foreign or title.startswith(TITLES):
            found.append(f"{title} (pid {folder.name})")
    return found


def _loops() -> list[str]:
    return [
        f"{path.parts[3]}: {path.read_text().strip()}" for path in Path("/sys/block").glob("loop*/loop/backing_file")
    ]


def _sysctls() -> list[str]:
    return [f"net.ipv4.ip_forward = {FORWARDING.read_text().strip()}"] if FORWARDING.exists() else []


READERS: dict[str, Callable[[], list[str]]] = {
    "mount": _mounts,
    "cgroup": _cgroups,
    "link": _links,
    "rule": _rules,
    "netns": _network_namespaces,
    "process": _processes,
    "loop": _loops,
    "sysctl": _sysctls,
}
