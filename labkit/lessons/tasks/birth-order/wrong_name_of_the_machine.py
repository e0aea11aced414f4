"""the machine itself has another name now"""


def order(steps):
    return ["name", "namespaces", "mounts", "pivot", "bounding", "user", "filter", "program"]
