"""the list lacks: filter"""


def order(steps):
    return ["namespaces", "mounts", "pivot", "name", "bounding", "user", "program"]
