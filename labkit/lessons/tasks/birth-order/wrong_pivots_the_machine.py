"""the machine itself has the container's mounts now"""


def order(steps):
    return ["mounts", "pivot", "namespaces", "name", "bounding", "user", "filter", "program"]
