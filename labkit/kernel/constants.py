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
    "rt_sigaction": (13, 134),
    "socket": (41, 198),
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
    "personality": (135, 92),
    "keyctl": (250, 219),
    "getcwd": (79, 17),
    "pidfd_getfd": (438, 438),
    "prlimit64": (302, 261),
    "sched_setattr": (314, 274),
    "sched_getattr": (315, 275),
    "ioprio_set": (251, 30),
    "ioprio_get": (252, 31),
    "mknodat": (259, 33),
    "fstatfs": (138, 44),
    "ioctl": (16, 29),
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
    "cachestat": (451, 451),
}

ARCHITECTURES = {"x86_64": 0, "aarch64": 1}  # os.uname().machine: column of SYSCALLS

# --- clone3(2), unshare(2), setns(2): include/uapi/linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
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
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_POSIXACL = 0x10000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000
MNT_DETACH = 0x2
MNT_EXPIRE = 0x4

# --- the new mount interface (Linux 5.2): include/uapi/linux/mount.h
FSOPEN_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
AT_RECURSIVE = 0x8000
MOVE_MOUNT_T_EMPTY_PATH = 0x40
OPEN_TREE_CLONE = 0x1
AT_EMPTY_PATH = 0x1000
OPEN_TREE_CLOEXEC = 0o2000000  # O_CLOEXEC
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# --- what statfs(2) calls a file system: include/uapi/linux/magic.h
PF_KTHREAD = 0x00200000  # include/linux/sched.h; of /proc/PID/stat, field 9
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1

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
PR_GET_DUMPABLE = 3
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

PR_CAP_AMBIENT_RAISE = 2

# --- sched_setattr(2): include/uapi/linux/sched.h; ioprio_set(2): linux/ioprio.h; personality(2): linux/personality.h
SCHED_NORMAL = 0
SCHED_FIFO = 1
SCHED_RR = 2
SCHED_BATCH = 3
SCHED_IDLE = 5
SCHED_DEADLINE = 6
SCHED_FLAG_RESET_ON_FORK = 0x01
SCHED_FLAG_RECLAIM = 0x02
SCHED_FLAG_DL_OVERRUN = 0x04
SCHED_FLAG_KEEP_POLICY = 0x08
SCHED_FLAG_KEEP_PARAMS = 0x10
SCHED_FLAG_UTIL_CLAMP_MIN = 0x20
SCHED_FLAG_UTIL_CLAMP_MAX = 0x40
IOPRIO_CLASS_SHIFT = 13
IOPRIO_CLASS_RT = 1
IOPRIO_CLASS_BE = 2
IOPRIO_CLASS_IDLE = 3
IOPRIO_WHO_PROCESS = 1
PER_LINUX = 0x0000
PER_LINUX32 = 0x0008

# --- capget(2): include/uapi/linux/capability.h
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# --- ioctl_tty(2): include/uapi/asm-generic/ioctls.h, the same on both architectures
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441

# --- seccomp(2), landlock(7), close_range(2)
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 0x1
SECCOMP_FILTER_FLAG_LOG = 0x2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 0x4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 0x10
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ACTION_FULL = 0xFFFF0000
SECCOMP_RET_DATA = 0x0000FFFF
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 0x1
LANDLOCK_CREATE_RULESET_VERSION = 1
CLOSE_RANGE_CLOEXEC = 4

# --- what seccomp_data.arch may hold: include/uapi/linux/audit.h
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7
AUDIT_ARCH_ARM = 0x40000028

# --- bpf(2): include/uapi/linux/bpf.h and bpf_common.h
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 0x2
BPF_DEVCG_ACC_MKNOD = 0x1
BPF_DEVCG_ACC_READ = 0x2
BPF_DEVCG_ACC_WRITE = 0x4
BPF_DEVCG_DEV_BLOCK = 0x1
BPF_DEVCG_DEV_CHAR = 0x2
# An instruction's code is a sum: its class, and what it does, and from where.
BPF_LDX = 0x01
BPF_ALU = 0x04
BPF_JMP = 0x05
BPF_ALU64 = 0x07
BPF_MEM = 0x60
BPF_W = 0x00
BPF_K = 0x00
BPF_X = 0x08
BPF_AND = 0x50
BPF_RSH = 0x70
BPF_MOV = 0xB0
BPF_JEQ = 0x10
BPF_JNE = 0x50
BPF_EXIT = 0x90
# Classic BPF, which seccomp still speaks, has these beside (linux/bpf_common.h).
BPF_LD = 0x00
BPF_RET = 0x06
BPF_ABS = 0x20
BPF_JA = 0x00
BPF_JGT = 0x20
BPF_JGE = 0x30
BPF_MAXINSNS = 4096

# --- keyctl(2): include/uapi/linux/keyctl.h; the rights of a key: include/linux/key.h
KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEY_POS_ALL = 0x3F000000
KEY_USR_VIEW = 0x00010000
KEY_USR_READ = 0x00020000
KEY_USR_SEARCH = 0x00080000

# --- sockets and devices: asm-generic/socket.h, linux/net.h, linux/sockios.h, linux/if.h
AF_INET = 2
SOCK_DGRAM = 2
SOCK_CLOEXEC = 0o2000000  # O_CLOEXEC
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40

# include/uapi/asm-generic/resource.h; the same on both architectures.
RLIMIT_CPU = 0
RLIMIT_FSIZE = 1
RLIMIT_DATA = 2
RLIMIT_STACK = 3
RLIMIT_CORE = 4
RLIMIT_RSS = 5
RLIMIT_NPROC = 6
RLIMIT_NOFILE = 7
RLIMIT_MEMLOCK = 8
RLIMIT_AS = 9
RLIMIT_LOCKS = 10
RLIMIT_SIGPENDING = 11
RLIMIT_MSGQUEUE = 12
RLIMIT_NICE = 13
RLIMIT_RTPRIO = 14
RLIMIT_RTTIME = 15
