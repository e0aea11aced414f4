"""making a symlink does not work any more: EPERM"""


def profile():
    rule = {"names": ["mkdir", "mkdirat", "symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO"}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
