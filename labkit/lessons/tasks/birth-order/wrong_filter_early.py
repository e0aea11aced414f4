"""user: Operation not permitted"""


def order(steps):
    return ["namespaces", "mounts", "pivot", "name", "bounding", "filter", "user", "program"]
