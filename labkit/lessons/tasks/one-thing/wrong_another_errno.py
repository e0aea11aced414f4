"""mkdir(2) ends with ENOSPC, and not with EPERM"""


def profile():
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
