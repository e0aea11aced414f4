"""Floor 3: what a container gets when nobody says otherwise: Docker's defaults, as data.

Owns: the tables only.  What each line protects is measured in notebook 08.

Read: moby's oci/defaults.go and profiles for the values; the OCI runtime specification,
config-linux, for the form.
"""

from __future__ import annotations

# Docker's fourteen (moby, oci/caps/defaults.go).
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
]

# Docker leaves no-new-privileges off unless it is asked for, so that su and ping work.
NO_NEW_PRIVILEGES = False

NAMESPACES = ["mount", "uts", "ipc", "pid", "network", "cgroup"]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MOUNTS: list[dict[str, object]] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        # nodev here is ours: the device nodes are bind mounts, so that a node which somebody makes
        # here opens nothing, even where DEVICE_RULES cannot be kept.
        "options": ["nosuid", "nodev", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup2",
        "source": "cgroup",
        "options": ["ro", "nosuid", "noexec", "nodev"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
]

# linux.resources.devices (labkit.kernel.cgroups.devices): any node may be made, these may be opened.
# Docker lists the six nodes (labkit.runtime.files.devices) and /dev/console; runc adds the rule for mknod and the
# terminals.
OPENED = (
    *({"major": 1, "minor": minor} for minor in (3, 5, 7, 8, 9)),  # null, zero, full, random, urandom
    *({"major": 5, "minor": minor} for minor in (0, 1, 2)),  # tty, console, ptmx
    {"major": 136},  # the terminals of /dev/pts, all of them
)
DEVICE_RULES: list[dict[str, object]] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *({"allow": True, "type": "c", **numbers, "access": "rwm"} for numbers in OPENED),
]

MASKED_PATHS = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]

READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

# Ports below 1024 and ping need no privilege inside, as in Docker since 20.10.
NETWORK_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
# Every group of the range must be known in the user namespace (net/ipv4/sysctl_net_ipv4.c): root's is in each.
NESTED_SYSCTLS = NETWORK_SYSCTLS | {"net.ipv4.ping_group_range": "0 0"}
