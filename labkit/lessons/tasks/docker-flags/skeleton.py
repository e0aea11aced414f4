# exercise: docker-flags


def files(memory=None, memory_swap=None, cpus=None, pids_limit=None):
    """What Docker writes for these options: {"memory.max": "268435456", ...}. What is not asked for is left out.

    memory, memory_swap -- words like "512k", "256m", "1g"; memory_swap also "-1"; only together with memory
    cpus                -- a number: 0.5
    pids_limit          -- a number
    """
    ...
