"""Floor 3: the document that `labkit-runtime spec` writes: a shell in the folder rootfs, to be edited.

Owns: the defaults, which are those of `runc spec` (a test compares), and what is different for
somebody who is not root.

Read: the OCI runtime specification, config.md, "Configuration Schema Example"; runc-spec(8).
"""

from __future__ import annotations

import os

from labkit.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

VERSION = "1.2.1"
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]
QUIET = ["nosuid", "noexec", "nodev"]
# destination: (type, source, options)
MOUNTS: dict[str, tuple[str, str, list[str]]] = {
    "/proc": ("proc", "proc", []),
    "/dev": ("tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    "/dev/pts": ("devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    "/dev/shm": ("tmpfs", "shm", [*QUIET, "mode=1777", "size=65536k"]),
    "/dev/mqueue": ("mqueue", "mqueue", QUIET),
    "/sys": ("sysfs", "sysfs", [*QUIET, "ro"]),
    "/sys/fs/cgroup": ("cgroup", "cgroup", [*QUIET, "relatime", "ro"]),
}
# Without a network namespace of one's own no sysfs may be mounted, and in a mapping of one number there is no
# group 5 (tty): the machine's /sys is bound, and the terminals keep their group.
ROOTLESS_MOUNTS: dict[str, tuple[str, str, list[str]]] = {
    **MOUNTS,
    "/dev/pts": ("devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    "/sys": ("none", "/sys", ["rbind", *QUIET, "ro"]),
}
NAMESPACES = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
ROOTLESS_NAMESPACES = ["pid", "ipc", "uts", "mount", "cgroup", "user"]
MASKED = ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def spec(*, rootless: bool = False, uid: int | None = None, gid: int | None = None) -> dict[str, Any]:
    """A whole config.json; rootless -- for this user, who becomes root inside a user namespace."""
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in (ROOTLESS_NAMESPACES if rootless else NAMESPACES)],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    if rootless:
        for field, number in (("uidMappings", uid), ("gidMappings", gid)):
            own = os.geteuid() if field == "uidMappings" else os.getegid()
            linux[field] = [{"containerID": 0, "hostID": own if number is None else number, "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": list(ENVIRONMENT),
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted", "ambient")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "labkit",
        "mounts": [_mount(place, *rest) for place, rest in (ROOTLESS_MOUNTS if rootless else MOUNTS).items()],
        "linux": linux,
    }


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        entry["options"] = list(options)
    return entry
