# exercise: one-thing
def profile():
    """linux.seccomp of a config.json: no folder can be made, and all else works.

    {"defaultAction": ..., "syscalls": [{"names": [...], "action": ..., "errnoRet": ...}]}
    The actions have names such as SCMP_ACT_ALLOW, SCMP_ACT_ERRNO and SCMP_ACT_KILL.
    """
    ...
