# exercise: one-thing
def profile():
    """linux.seccomp of a config.json: no folder can be made, and all else works."""
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
