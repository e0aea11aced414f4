"""Floor 3: every field of config.json that a Linux runtime reads, with its shape.

Owns: the table, in the order of the specification's own pages.  A name that ends in ! must
be there.  What the types cannot say stands in labkit.runtime.document.rules.

Read: the OCI runtime specification 1.2.1, config.md and config-linux.md; the schemas beside
it say the same for programs, and a test compares.
"""

from __future__ import annotations

from labkit.runtime.document.shapes import Capitals, Each, Like, Named, Object, Of, Text, Whole, Word

TEXT, FLAG = Text(), Of(bool)
UINT16, UINT32, UINT64 = Whole(0, 2**16 - 1), Whole(0, 2**32 - 1), Whole(0, 2**64 - 1)
INT32, INT64 = Whole(-(2**31), 2**31 - 1), Whole(-(2**63), 2**63 - 1)
TEXTS = Each(TEXT)
PROCESSORS = Like(r"[0-9, -]*", "a list of processors such as 0-3,7")

MAPPINGS = Each(Object({"containerID!": UINT32, "hostID!": UINT32, "size!": UINT32}))
HOOKS = Each(Object({"path!": TEXT, "args": TEXTS, "env": TEXTS, "timeout": Whole(1, 2**31 - 1)}))
HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
CAPABILITY_SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")

ROOT = Object({"path!": TEXT, "readonly": FLAG})
MOUNT = Object(
    {
        "destination!": TEXT,
        "type": TEXT,
        "source": TEXT,
        "options": TEXTS,
        "uidMappings": MAPPINGS,
        "gidMappings": MAPPINGS,
    }
)
POLICIES = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
SCHEDULER_FLAGS = ("RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN",
                   "UTIL_CLAMP_MAX")  # fmt: skip
PROCESS = Object(
    {
        "terminal": FLAG,
        "consoleSize": Object({"height!": UINT64, "width!": UINT64}),
        "cwd!": TEXT,
        "env": TEXTS,
        "args": TEXTS,
        "commandLine": TEXT,  # for Windows
        "user": Object(
            {"uid": UINT32, "gid": UINT32, "umask": UINT32, "additionalGids": Each(UINT32), "username": TEXT}
        ),
        "rlimits": Each(
            Object({"type!": Capitals("RLIMIT_", "a name such as RLIMIT_NOFILE"), "soft!": UINT64, "hard!": UINT64})
        ),
        "apparmorProfile": TEXT,
        "selinuxLabel": TEXT,
        "capabilities": Object(dict.fromkeys(CAPABILITY_SETS, TEXTS)),
        "noNewPrivileges": FLAG,
        "oomScoreAdj": Whole(-1000, 1000),
        "scheduler": Object(
            {
                "policy!": Word(*POLICIES),
                "nice": INT32,
                "priority": INT32,
                "flags": Each(Word(*(f"SCHED_FLAG_{name}" for name in SCHEDULER_FLAGS))),
                "runtime": UINT64,
                "deadline": UINT64,
                "period": UINT64,
            }
        ),
        "ioPriority": Object(
            {"class!": Word("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"), "priority": INT32}
        ),
        "execCPUAffinity": Object({"initial": PROCESSORS, "final": PROCESSORS}),
    }
)
NAMESPACE_TYPES = ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")
DEVICE = Object(
    {
        "type!": Word("c", "b", "u", "p"),
        "path!": TEXT,
        "major": INT64,
        "minor": INT64,
        # The schema ends at 0o1000, as if it had meant 0777; set-user-ID and sticky bits are bits of a mode too, and
        # podman writes all of stat(2)'s st_mode.
        "fileMode": Whole(0, 0o177777),
        "uid": UINT32,
        "gid": UINT32,
    }
)
THROTTLE = Each(Object({"major!": INT64, "minor!": INT64, "rate": UINT64}))
RESOURCES = Object(
    {
        "devices": Each(Object({"allow!": FLAG, "type": TEXT, "major": INT64, "minor": INT64, "access": TEXT})),
        "memory": Object(
            {
                "limit": INT64,
                "reservation": INT64,
                "swap": INT64,
                "kernel": INT64,
                "kernelTCP": INT64,
                "swappiness": UINT64,
                "disableOOMKiller": FLAG,
                "useHierarchy": FLAG,
                "checkBeforeUpdate": FLAG,
            }
        ),
        "cpu": Object(
            {
                "shares": UINT64,
                "quota": INT64,
                "burst": UINT64,
                "period": UINT64,
                "realtimeRuntime": INT64,
                "realtimePeriod": UINT64,
                "cpus": TEXT,
                "mems": TEXT,
                "idle": INT64,
            }
        ),
        "pids": Object({"limit!": INT64}),
        "blockIO": Object(
            {
                "weight": UINT16,
                "leafWeight": UINT16,
                "weightDevice": Each(
                    Object({"major!": INT64, "minor!": INT64, "weight": UINT16, "leafWeight": UINT16})
                ),
                "throttleReadBpsDevice": THROTTLE,
                "throttleWriteBpsDevice": THROTTLE,
                "throttleReadIOPSDevice": THROTTLE,
                "throttleWriteIOPSDevice": THROTTLE,
            }
        ),
        "hugepageLimits": Each(
            Object({"pageSize!": Like("[1-9][0-9]*[KMG]B", "a size such as 2MB"), "limit!": UINT64})
        ),
        "network": Object({"classID": UINT32, "priorities": Each(Object({"name!": TEXT, "priority!": UINT32}))}),
        "rdma": Named(Object({"hcaHandles": UINT32, "hcaObjects": UINT32})),
        "unified": Named(TEXT),
    }
)
OFFSET = Object({"secs": INT64, "nanosecs": UINT32})
LINUX = Object(
    {
        "namespaces": Each(Object({"type!": Word(*NAMESPACE_TYPES), "path": TEXT})),
        "uidMappings": MAPPINGS,
        "gidMappings": MAPPINGS,
        "timeOffsets": Object({"boottime": OFFSET, "monotonic": OFFSET}),
        "devices": Each(DEVICE),
        "cgroupsPath": TEXT,
        "resources": RESOURCES,
        "intelRdt": Object(
            {
                "closID": TEXT,
                "l3CacheSchema": TEXT,
                "memBwSchema": Like(r"MB:[^\n]*", "a line that begins with MB:"),
                "enableCMT": FLAG,
                "enableMBM": FLAG,
            }
        ),
        "sysctl": Named(TEXT),
        "seccomp": Of(dict),  # labkit.runtime.document.fields_seccomp, where there is one
        # The specification has four words; Docker and podman write the ones with r, as mount(8) has them.
        "rootfsPropagation": Word(
            *(r + word for word in ("private", "shared", "slave", "unbindable") for r in ("", "r"))
        ),
        "maskedPaths": TEXTS,
        "readonlyPaths": TEXTS,
        "mountLabel": TEXT,
        "personality": Object({"domain": Word("LINUX", "LINUX32"), "flags": TEXTS}),
    }
)
CONFIG = Object(
    {
        "ociVersion!": TEXT,
        "root": ROOT,
        "mounts": Each(MOUNT),
        "process": PROCESS,
        "hostname": TEXT,
        "domainname": TEXT,
        "hooks": Object(dict.fromkeys(HOOK_KINDS, HOOKS)),
        "annotations": Named(TEXT),
        "linux": LINUX,
    }
)
