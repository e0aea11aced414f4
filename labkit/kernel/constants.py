"""Floor 1: the numbers that the kernel's interface is made of.

Owns: system call numbers for x86-64 and aarch64, and the flags of the calls that
the kit makes.  Python's `os` lacks many of them, depending on how it was built, so
the kit keeps its own tables; tests compare them with the kernel's headers of both
architectures.  An unknown architecture is an error, never a guess.

Read: syscalls(2), and include/uapi/ in the kernel's source.
"""

from __future__ import annotations

# name: (x86-64, aarch64).  From 424 on, every architecture shares one number.
SYSCALLS = {
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "capget": (125, 90),
    "capset": (126, 91),
    "prctl": (157, 167),
    "gettid": (186, 178),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "setns": (308, 268),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "mknodat": (259, 33),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}

ARCHITECTURES = {"x86_64": 0, "aarch64": 1}  # os.uname().machine: column of SYSCALLS

# --- clone3(2), unshare(2), setns(2): include/uapi/linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_PIDFD = 0x00001000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# --- mount(2), umount2(2): include/uapi/linux/mount.h and fs.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MNT_DETACH = 0x2

# --- the new mount interface (Linux 5.2): include/uapi/linux/mount.h
FSOPEN_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1

# --- openat2(2): include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# --- open(2): those whose value depends on the architecture come from Python's os
O_PATH = 0o10000000

# --- prctl(2): include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_KEEPCAPS = 8

# --- capget(2): include/uapi/linux/capability.h
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# --- ioctl_tty(2): include/uapi/asm-generic/ioctls.h, the same on both architectures
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431

# --- seccomp(2), landlock(7), close_range(2)
SECCOMP_SET_MODE_FILTER = 1
LANDLOCK_CREATE_RULESET_VERSION = 1
CLOSE_RANGE_CLOEXEC = 4
