"""memory.max holds"""


def files(memory=None, memory_swap=None, cpus=None, pids_limit=None):
    """What Docker writes for these options."""
    found = {}
    if memory is not None:
        found["memory.max"] = str(int(memory[:-1]) * 1000 ** (" kmg".index(memory[-1])) // 4096 * 4096)
    if cpus is not None:
        found["cpu.max"] = f"{round(cpus * 100_000)} 100000"
    if pids_limit is not None:
        found["pids.max"] = str(pids_limit)
    return found
