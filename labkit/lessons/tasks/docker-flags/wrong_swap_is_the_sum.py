"""memory.swap.max holds"""


def size(word):
    return int(word[:-1]) * 1024 ** (" kmg".index(word[-1]))


def files(memory=None, memory_swap=None, cpus=None, pids_limit=None):
    """What Docker writes for these options."""
    found = {}
    if memory is not None:
        found["memory.max"] = str(size(memory))
        found["memory.swap.max"] = "max" if memory_swap == "-1" else str(size(memory_swap or memory))
    if cpus is not None:
        found["cpu.max"] = f"{round(cpus * 100_000)} 100000"
    if pids_limit is not None:
        found["pids.max"] = str(pids_limit)
    return found
