"""pivot: Operation not permitted"""


def order(steps):
    return ["namespaces", "mounts", "user", "pivot", "name", "bounding", "filter", "program"]
