"""a cgroup has no file"""


def files(memory=None, memory_swap=None, cpus=None, pids_limit=None):
    """What Docker writes for these options."""
    found = {}
    if cpus is not None:  # as version 1 called them
        found["cpu.cfs_quota_us"] = str(round(cpus * 100_000))
        found["cpu.cfs_period_us"] = "100000"
    if pids_limit is not None:
        found["pids.max"] = str(pids_limit)
    if memory is not None:
        found["memory.limit_in_bytes"] = memory
    return found
