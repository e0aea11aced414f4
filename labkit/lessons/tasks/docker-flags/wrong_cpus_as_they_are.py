"""written into cpu.max: Invalid argument"""


def files(memory=None, memory_swap=None, cpus=None, pids_limit=None):
    """What Docker writes for these options."""
    found = {}
    if memory is not None:
        found["memory.max"] = memory
    if cpus is not None:
        found["cpu.max"] = f"{cpus}"
    if pids_limit is not None:
        found["pids.max"] = str(pids_limit)
    return found
