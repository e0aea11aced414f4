"""the container does not start with it"""


def profile():
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
