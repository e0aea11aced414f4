# exercise: docker-flags


def size(word):
    """Bytes of "256m"."""
    return int(word[:-1]) * 1024 ** (" kmg".index(word[-1]))


def files(memory=None, memory_swap=None, cpus=None, pids_limit=None):
    """What Docker writes for these options: {"memory.max": "268435456", ...}. What is not asked for is left out."""
    found = {}
    if memory is not None:
        found["memory.max"] = str(size(memory))
        if memory_swap == "-1":
            found["memory.swap.max"] = "max"
        else:
            both = size(memory_swap) if memory_swap else 2 * size(memory)
            found["memory.swap.max"] = str(both - size(memory))
    if cpus is not None:
        found["cpu.max"] = f"{round(cpus * 100_000)} 100000"
    if pids_limit is not None:
        found["pids.max"] = str(pids_limit)
    return found
